"""The device executor: colour operations inside the jitted step, from the host's decisions.

The operations are those of SimCLR's code (Chen et al. 2020, appendix A). Brightness multiplies.
Contrast scales around the mean of each channel. Saturation and hue are those of HSV, as in
`tf.image`. Grey has the weights of Rec. 601. There is one difference: the blur mirrors the image at
its edges. SimCLR pads with zeros, which gives every blurred view a dark frame.

Each function works on one image and is mapped with `vmap`. No operation combines examples, so a
batch that is sharded on its first axis stays on its devices.
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

NO_OPERATION = -1
# One array per channel. If operations slice a stacked image, XLA recomputes it channel by channel,
# 3**n times for n operations.
Planes = tuple[jax.Array, ...]


def apply(crops: jax.Array, decisions: jax.Array, views: tuple[View, ...]) -> jax.Array:
    """Makes views from the host's crops and decisions.

    Operations that a view never applies (probability or strength 0) are not compiled.

    Args:
      crops: uint8 [b, v, s, s, c], from `host.make(..., placement="device")`.
      decisions: float32 [b, v, len(Decisions)], from the same function.
      views: the v views that `host.make` got.

    Returns:
      float32 [b, v, s, s, c] in [0, 1].
    """
    if len(set(views)) == 1:  # compiles one program instead of v equal ones
        return jax.vmap(jax.vmap(partial(_colour, view=views[0])))(crops, decisions)
    columns = [
        jax.vmap(partial(_colour, view=view))(crops[:, v], decisions[:, v])
        for v, view in enumerate(views)
    ]
    return jnp.stack(columns, axis=1)


def _colour(crop: jax.Array, decisions: jax.Array, view: View) -> jax.Array:
    """Applies the colour operations to one crop: uint8 [s, s, c] -> float32 in [0, 1]."""
    d = Decisions(*(decisions[i] for i in range(len(Decisions._fields))))
    x = recolour(crop.astype(jnp.float32) / 255, d, view)
    if view.blur:
        x = jnp.where(d.blur > 0, _blur(x, d.blur_sigma, view), x)
    if view.solarize:
        x = jnp.where((d.solarize > 0) & (x >= 0.5), 1 - x, x)
    if view.noise:
        x = jnp.clip(x + d.noise * _gaussian(d.noise_seed, view.size), 0, 1)
    return x


def recolour(x: jax.Array, d: Decisions, view: View) -> jax.Array:
    """Applies the jitter and the grey conversion to one image [h, w, c] in [0, 1]."""
    planes = tuple(x[..., channel] for channel in range(x.shape[-1]))
    if view.jitter:
        planes = _select(d.jitter > 0, _jitter(planes, d, view), planes)
    if view.grayscale:
        gray = 0.2989 * planes[0] + 0.587 * planes[1] + 0.114 * planes[2]
        planes = _select(d.grayscale > 0, (gray, gray, gray), planes)
    return jnp.stack(planes, axis=-1)


def _select(condition: jax.Array, yes: Planes, no: Planes) -> Planes:
    return tuple(jnp.where(condition, y, n) for y, n in zip(yes, no, strict=True))


def _map_planes(planes: Planes, op: Callable[[jax.Array], jax.Array]) -> Planes:
    """Applies `op` to every plane and clips the result to [0, 1]."""
    return tuple(jnp.clip(op(plane), 0, 1) for plane in planes)


def _jitter(planes: Planes, d: Decisions, view: View) -> Planes:
    """Applies the four jitter operations in the decided order and clips after each.

    Orders differ within a batch, and a batched switch would compute every branch. Only contrast
    needs more than one pixel. The other three operations are therefore selected pixel by pixel
    before and after it: two fusible passes and one mean, instead of four passes and four means.
    """
    order = jnp.asarray(ORDERS, jnp.int32)[d.order.astype(jnp.int32)]
    place = jnp.argmax(order == CONTRAST)
    for i in range(3):
        planes = _pixelwise(planes, jnp.where(i < place, order[i], NO_OPERATION), d, view)
    if view.contrast:
        planes = _map_planes(planes, lambda x: _adjust_contrast(x, d.contrast))
    for i in range(1, 4):
        planes = _pixelwise(planes, jnp.where(i > place, order[i], NO_OPERATION), d, view)
    return planes


def _pixelwise(planes: Planes, op: jax.Array, d: Decisions, view: View) -> Planes:
    """Applies the operation numbered `op`, unless it is NO_OPERATION or has strength 0."""
    result = planes
    if view.brightness:
        bright = _map_planes(planes, lambda x: x * d.brightness)
        result = _select(op == BRIGHTNESS, bright, result)
    if view.saturation:
        result = _select(op == SATURATION, _adjust_saturation(planes, d.saturation), result)
    if view.hue:
        result = _select(op == HUE, _shift_hue(planes, d.hue), result)
    return result


def _adjust_contrast(plane: jax.Array, factor: jax.Array) -> jax.Array:
    mean = jnp.mean(plane)
    return (plane - mean) * factor + mean


def _value_chroma(rgb: Planes) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns HSV's value, the chroma, and the inverse of the chroma (1 for grey pixels)."""
    r, g, b = rgb
    value = jnp.maximum(jnp.maximum(r, g), b)
    chroma = value - jnp.minimum(jnp.minimum(r, g), b)
    return value, chroma, 1 / jnp.where(chroma > 0, chroma, 1)


def _adjust_saturation(rgb: Planes, factor: jax.Array) -> Planes:
    """Multiplies HSV's saturation by `factor`, up to 1, by moving channels to or from the value."""
    value, _, inverse = _value_chroma(rgb)
    factor = jnp.minimum(factor, value * inverse)
    return _map_planes(rgb, lambda x: value - (value - x) * factor)


def _shift_hue(rgb: Planes, turns: jax.Array) -> Planes:
    """Shifts HSV's hue by `turns` full turns."""
    r, g, b = rgb
    value, chroma, inverse = _value_chroma(rgb)
    # XLA may compute a channel twice, with different rounding: `r == value` could fail for all.
    hue = jnp.where(g >= b, (b - r) * inverse + 2, (r - g) * inverse + 4)
    hue = jnp.where((r >= g) & (r >= b), (g - b) * inverse, hue) + 6 * turns
    hue = hue - 6 * jnp.floor(hue / 6)  # `%` makes the whole jitter four times slower on a CPU
    shares = jnp.abs(hue - 3) - 1, 2 - jnp.abs(hue - 2), 2 - jnp.abs(hue - 4)
    return _map_planes(shares, lambda share: value - chroma * (1 - jnp.clip(share, 0, 1)))


def _blur(x: jax.Array, sigma: jax.Array, view: View) -> jax.Array:
    """Blurs by a separable Gaussian; edges are mirrored without repeating the edge pixel."""
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
    """Returns standard normal noise for `seed`: float32 [s, s, 1], equal in all channels.

    Applies Box-Muller to two hashes per pixel (MurmurHash3's finaliser). TensorFlow and JAX have no
    generator in common, but their integers agree to the bit. The counter is hashed before the key
    is added; otherwise neighbouring seeds would give shifted copies of one field.
    """

    def mix(h: jax.Array) -> jax.Array:
        for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
            h = (h ^ (h >> shift)) * jnp.uint32(factor)
        return h ^ (h >> 16)

    counter = jnp.arange(2 * size * size, dtype=jnp.uint32).reshape(2, size, size, 1)
    key = seed.astype(jnp.uint32) * jnp.uint32(0x9E3779B9)
    radius, angle = (mix(mix(counter) + key) >> 8).astype(jnp.float32)
    return jnp.sqrt(-2 * jnp.log((radius + 1) / 2**24)) * jnp.cos(2 * jnp.pi / 2**24 * angle)
