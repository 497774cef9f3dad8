"""The executor that does the colour work inside the jitted step, from shipped decisions.

The operations are those of SimCLR's code (Chen et al. 2020, appendix A): brightness multiplies,
contrast is about the mean of each channel, saturation and hue are HSV's as in `tf.image`, grey has
the weights of Rec. 601. One deviation: the blur mirrors the image at its edges, where SimCLR pads
with zeros and so marks every blurred view by a dark frame. Written per image and mapped with
`vmap`: nothing here makes examples meet, so a batch sharded on its first axis stays where it is.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from ssl_jax.inputs.image.views import (
    BRIGHTNESS,
    CONTRAST,
    HUE,
    ORDERS,
    SATURATION,
    Decisions,
    View,
    blur_radius,
)

NOTHING = -1
# One array per channel, because slicing a stacked image between the operations makes XLA recompute
# it channel by channel, 3**n times.
Planes = tuple[jax.Array, ...]


def apply(crops: jax.Array, decisions: jax.Array, views: tuple[View, ...]) -> jax.Array:
    """Turns the host's crops and decisions into views.

    crops: uint8 [b, v, s, s, c]; decisions: float32 [b, v, len(Decisions)], both from
    `host.make(..., placement="device")` with the same `views`. Returns float32 [b, v, s, s, c] in
    [0, 1]. What a view never does (probability or strength 0) is not compiled.
    """
    if len(set(views)) == 1:  # one program instead of equal ones side by side
        return jax.vmap(jax.vmap(partial(_colour, view=views[0])))(crops, decisions)
    columns = [
        jax.vmap(partial(_colour, view=view))(crops[:, v], decisions[:, v])
        for v, view in enumerate(views)
    ]
    return jnp.stack(columns, axis=1)


def _colour(crop: jax.Array, decisions: jax.Array, view: View) -> jax.Array:
    d = Decisions(*(decisions[i] for i in range(len(Decisions._fields))))
    x = crop.astype(jnp.float32) / 255
    rgb = tuple(x[..., channel] for channel in range(x.shape[-1]))
    if view.jitter:
        rgb = _where(d.jitter > 0, _jittered(rgb, d, view), rgb)
    if view.grayscale:
        gray = 0.2989 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]
        rgb = _where(d.grayscale > 0, (gray, gray, gray), rgb)
    x = jnp.stack(rgb, axis=-1)
    if view.blur:
        x = jnp.where(d.blur > 0, _blurred(x, d.blur_sigma, view), x)
    if view.solarize:
        x = jnp.where((d.solarize > 0) & (x >= 0.5), 1 - x, x)
    if view.noise:
        x = jnp.clip(x + d.noise * _gaussian(d.noise_seed, view.size), 0, 1)
    return x


def _where(condition: jax.Array, yes: Planes, no: Planes) -> Planes:
    return tuple(jnp.where(condition, y, n) for y, n in zip(yes, no, strict=True))


def _each(rgb: Planes, op: Callable[[jax.Array], jax.Array]) -> Planes:
    """`op` on every plane, clipped to [0, 1]."""
    return tuple(jnp.clip(op(plane), 0, 1) for plane in rgb)


def _jittered(rgb: Planes, d: Decisions, view: View) -> Planes:
    """The four operations in the decided order, clipped after each.

    Orders differ within a batch, and a batched switch computes every branch. Contrast alone needs
    more than one pixel, so the other three are chosen pixel by pixel before and after it: two
    fusible passes and one mean, instead of four passes and four means.
    """
    order = jnp.asarray(ORDERS, jnp.int32)[d.order.astype(jnp.int32)]
    place = jnp.argmax(order == CONTRAST)
    for i in range(3):
        rgb = _pixelwise(rgb, jnp.where(i < place, order[i], NOTHING), d, view)
    if view.contrast:
        rgb = _each(rgb, lambda x: _contrasted(x, d.contrast))
    for i in range(1, 4):
        rgb = _pixelwise(rgb, jnp.where(i > place, order[i], NOTHING), d, view)
    return rgb


def _pixelwise(rgb: Planes, op: jax.Array, d: Decisions, view: View) -> Planes:
    """Applies the operation numbered `op`, unless it is NOTHING or without strength."""
    result = rgb
    if view.brightness:
        bright = _each(rgb, lambda x: x * d.brightness)
        result = _where(op == BRIGHTNESS, bright, result)
    if view.saturation:
        result = _where(op == SATURATION, _saturated(rgb, d.saturation), result)
    if view.hue:
        result = _where(op == HUE, _turned(rgb, d.hue), result)
    return result


def _contrasted(plane: jax.Array, factor: jax.Array) -> jax.Array:
    mean = jnp.mean(plane)
    return (plane - mean) * factor + mean


def _value_chroma(rgb: Planes) -> tuple[jax.Array, jax.Array, jax.Array]:
    """HSV's value, the chroma, and the chroma's inverse (1 where the pixel is grey)."""
    r, g, b = rgb
    value = jnp.maximum(jnp.maximum(r, g), b)
    chroma = value - jnp.minimum(jnp.minimum(r, g), b)
    return value, chroma, 1 / jnp.where(chroma > 0, chroma, 1)


def _saturated(rgb: Planes, factor: jax.Array) -> Planes:
    """HSV's saturation times `factor`, at most 1: channels move along the line to the value."""
    value, _, inverse = _value_chroma(rgb)
    factor = jnp.minimum(factor, value * inverse)
    return _each(rgb, lambda x: value - (value - x) * factor)


def _turned(rgb: Planes, turns: jax.Array) -> Planes:
    """HSV's hue moved by `turns` full turns."""
    r, g, b = rgb
    value, chroma, inverse = _value_chroma(rgb)
    hue = jnp.where(g == value, (b - r) * inverse + 2, (r - g) * inverse + 4)
    hue = jnp.where(r == value, (g - b) * inverse, hue) + 6 * turns
    hue = hue - 6 * jnp.floor(hue / 6)  # `%` makes the whole jitter four times slower on a CPU
    shares = jnp.abs(hue - 3) - 1, 2 - jnp.abs(hue - 2), 2 - jnp.abs(hue - 4)
    return _each(shares, lambda share: value - chroma * (1 - jnp.clip(share, 0, 1)))


def _blurred(x: jax.Array, sigma: jax.Array, view: View) -> jax.Array:
    """Separable Gaussian blur, mirrored at the edges (without repeating the edge pixel)."""
    radius = blur_radius(view)
    taps = jnp.exp(-(jnp.arange(-radius, radius + 1, dtype=jnp.float32) ** 2) / (2 * sigma**2))
    taps = taps / jnp.sum(taps)
    for axis in (0, 1):
        margin = [(radius, radius) if a == axis else (0, 0) for a in range(3)]
        padded = jnp.pad(x, margin, mode="reflect")
        shifted = (
            jax.lax.slice_in_dim(padded, i, i + view.size, axis=axis) for i in range(2 * radius + 1)
        )
        x = sum(tap * s for tap, s in zip(taps, shifted, strict=True))
    return x


def _gaussian(seed: jax.Array, size: int) -> jax.Array:
    """The field of standard normal noise named `seed`: float32 [s, s, 1], equal in all channels.

    Box-Muller on two hashes per pixel (MurmurHash3's finalizer), because no generator is common to
    TensorFlow and JAX; integers agree to the bit. Hashing the counter before the key is added keeps
    neighbouring seeds from giving shifted fields.
    """

    def mix(h: jax.Array) -> jax.Array:
        for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
            h = (h ^ (h >> shift)) * jnp.uint32(factor)
        return h ^ (h >> 16)

    counter = jnp.arange(2 * size * size, dtype=jnp.uint32).reshape(2, size, size, 1)
    key = seed.astype(jnp.uint32) * jnp.uint32(0x9E3779B9)
    radius, angle = (mix(mix(counter) + key) >> 8).astype(jnp.float32)
    return jnp.sqrt(-2 * jnp.log((radius + 1) / 2**24)) * jnp.cos(2 * jnp.pi / 2**24 * angle)
