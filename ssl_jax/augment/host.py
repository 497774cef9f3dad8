"""The sampler of every random decision, and the executor that runs beside the decoder.

TensorFlow is imported inside the functions, so that a machine without it can import the package.
`augment.device` states the operations; here TensorFlow's own kernels do the same.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ssl_jax.augment.views import ORDERS, Decisions, View, blur_radius, factors
from ssl_jax.errors import BAD_CONFIG, Fault

Tensor = Any  # tf.Tensor
ATTEMPTS = 10  # boxes tried before the fallback, as in Inception's crop
PHILOX = 1  # named, so that the bits do not depend on what TensorFlow prefers on a device


def make(
    views: Sequence[View], *, seed: int, placement: str
) -> Callable[[Tensor, Tensor, Tensor], dict[str, Tensor]]:
    """Builds the function that makes the random views of one image.

    The function takes (image uint8 [h, w, 3] of any size, epoch int64, index int64), runs eagerly
    or inside `tf.data`'s map, and its result depends on these, `views` and `seed` alone. It returns
      placement "host":   views float32 [v, s, s, 3] in [0, 1];
      placement "device": views uint8 [v, s, s, 3], decisions float32 [v, len(Decisions)], the
                          input of `device.apply`, which gives the pixels of placement "host".
    The crop is resized (bicubic, antialiased), clipped and rounded to uint8 and mirrored first, in
    both placements; the colour work starts from these bytes.

    Raises Fault (bad config) for another placement, or views of unequal size.
    """
    if placement not in ("host", "device"):
        raise Fault(f"placement is 'host' or 'device', not {placement!r}", BAD_CONFIG)
    if len({view.size for view in views}) != 1:
        sizes = [view.size for view in views]
        raise Fault(f"all views of a recipe need one size, got sizes {sizes}", BAD_CONFIG)

    def augment(image: Tensor, epoch: Tensor, index: Tensor) -> dict[str, Tensor]:
        import tensorflow as tf

        keys = tf.unstack(_keys(seed, epoch, index, len(views)))
        chosen = [_decide(key, image, view) for key, view in zip(keys, views, strict=True)]
        crops = [_crop(image, d, view) for d, view in zip(chosen, views, strict=True)]
        if placement == "device":
            return {"views": tf.stack(crops), "decisions": tf.stack([tf.stack(d) for d in chosen])}
        triples = zip(crops, chosen, views, strict=True)
        return {"views": tf.stack([_colour(crop, d, view) for crop, d, view in triples])}

    return augment


def center_view(image: Tensor, *, size: int, crop: float) -> Tensor:
    """The evaluation view: short side resized to size / crop, centre cut out; uint8 [s, s, 3].

    image: uint8 [h, w, 3]. One resampling of the window alone (bicubic, antialiased), so a very
    long image costs no more. SimCLR and most linear evaluations: size 224, crop 0.875.
    """
    import tensorflow as tf

    shape = tf.cast(tf.shape(image)[:2], tf.float32)
    scale = size / crop / tf.reduce_min(shape)
    window = tf.raw_ops.ScaleAndTranslate(
        images=image[None],
        size=[size, size],
        scale=tf.fill([2], scale),
        translation=size / 2 - scale * shape / 2,
        kernel_type="keyscubic",
        antialias=True,
    )
    return tf.ensure_shape(_to_bytes(window[0]), [size, size, 3])


def _to_bytes(pixels: Tensor) -> Tensor:
    import tensorflow as tf

    return tf.saturate_cast(tf.round(pixels), tf.uint8)


def _keys(seed: int, epoch: Tensor, index: Tensor, views: int) -> Tensor:
    """One 64-bit key for each view: uint64 [v], a function of (seed, epoch, index, view) alone.

    Philox is a bijection of its 128-bit counter, here (epoch and view, index): two positions of
    a run collide only as random 64-bit numbers do. The low 20 bits of the counter number the views.
    """
    import tensorflow as tf

    counter = tf.stack([tf.cast(epoch, tf.int64) * 2**20, tf.cast(index, tf.int64)])
    return tf.raw_ops.StatelessRandomUniformFullIntV2(
        shape=[views],
        key=tf.constant([seed % 2**64], tf.uint64),
        counter=tf.cast(counter, tf.uint64),
        alg=PHILOX,
        dtype=tf.uint64,
    )


def _uniform(key: Tensor, op: str, shape: Sequence[int] = ()) -> Tensor:
    """Uniform float32 in [0, 1) from the stream of `op`; multiples of 2**-23.

    Each op folds its own number into the counter's upper half, so no op's values depend on which
    others were drawn. (TensorFlow's fold_in for every op does the same for 0.5 ms more per image.)
    """
    import tensorflow as tf

    return tf.raw_ops.StatelessRandomUniformV2(
        shape=tf.constant(shape, tf.int32),
        key=key[None],
        counter=tf.constant([0, Decisions._fields.index(op)], tf.uint64),
        alg=PHILOX,
        dtype=tf.float32,
    )


def _decide(key: Tensor, image: Tensor, view: View) -> Decisions:
    """All decisions of one view, float32 scalars; what `view` switches off is not drawn."""
    import tensorflow as tf

    def chance(op: str, probability: float) -> Tensor:
        if not probability:
            return tf.constant(0.0)
        return tf.cast(_uniform(key, op) < probability, tf.float32)

    def between(op: str, low: float, high: float, wanted: float) -> Tensor:
        return low + (high - low) * _uniform(key, op) if wanted else tf.constant(0.0)

    def below(op: str, end: int, wanted: float) -> Tensor:
        return tf.floor(end * _uniform(key, op)) if wanted else tf.constant(0.0)

    uniform = _uniform(key, "top", [2 * ATTEMPTS + 2])
    top, left, height, width = _box(uniform, tf.shape(image), view)
    return Decisions(
        top=top,
        left=left,
        height=height,
        width=width,
        flip=chance("flip", view.flip),
        jitter=chance("jitter", view.jitter),
        order=below("order", len(ORDERS), view.jitter),
        brightness=between("brightness", *factors(view.brightness), view.jitter),
        contrast=between("contrast", *factors(view.contrast), view.jitter),
        saturation=between("saturation", *factors(view.saturation), view.jitter),
        hue=between("hue", -view.hue, view.hue, view.jitter),
        grayscale=chance("grayscale", view.grayscale),
        blur=chance("blur", view.blur),
        blur_sigma=between("blur_sigma", *view.blur_sigma, view.blur),
        solarize=chance("solarize", view.solarize),
        noise=between("noise", 0, view.noise, view.noise),
        noise_seed=below("noise_seed", 2**23, view.noise),
    )


def _box(uniform: Tensor, shape: Tensor, view: View) -> list[Tensor]:
    """Top, left, height and width of the crop, whole numbers in float32.

    The first of ATTEMPTS boxes of uniform area and log-uniform aspect that fits (Szegedy et al.
    2015, section 6); if none does, the largest box of the nearest allowed aspect. Either way the
    place is uniform, so that a long image does not give two equal views.
    """
    import tensorflow as tf

    height, width = tf.unstack(tf.cast(shape[:2], tf.float32))
    (least, most), (narrow, wide) = view.crop_area, view.crop_aspect
    low, high = math.log(narrow), math.log(wide)
    area = height * width * (least + (most - least) * uniform[:ATTEMPTS])
    aspect = tf.exp(low + (high - low) * uniform[ATTEMPTS : 2 * ATTEMPTS])
    heights, widths = tf.round(tf.sqrt(area / aspect)), tf.round(tf.sqrt(area * aspect))

    nearest = tf.clip_by_value(width / height, narrow, wide)
    last_height = tf.clip_by_value(tf.round(width / nearest), 1, height)
    last_width = tf.clip_by_value(tf.round(height * nearest), 1, width)
    heights = tf.concat([heights, [last_height]], 0)
    widths = tf.concat([widths, [last_width]], 0)

    fits = (heights >= 1) & (heights <= height) & (widths >= 1) & (widths <= width)
    first = tf.argmax(fits)
    h, w = heights[first], widths[first]
    top = tf.floor(uniform[-2] * (height - h + 1))
    return [top, tf.floor(uniform[-1] * (width - w + 1)), h, w]


def _crop(image: Tensor, d: Decisions, view: View) -> Tensor:
    """Cut out, resized and mirrored: uint8 [s, s, 3]."""
    import tensorflow as tf

    top, left, height, width = (tf.cast(edge, tf.int32) for edge in d[:4])
    box = image[top : top + height, left : left + width]
    crop = tf.image.resize(box, [view.size, view.size], "bicubic", antialias=True)
    crop = tf.ensure_shape(_to_bytes(crop), [view.size, view.size, 3])
    return _maybe(view.flip, d.flip, lambda x: tf.reverse(x, [1]), crop)


def _maybe(probability: float, decision: Tensor, op: Callable[[Tensor], Tensor], x: Tensor):
    """Applies `op` where it was decided; builds no branch for what can never happen."""
    import tensorflow as tf

    return tf.cond(decision > 0, lambda: op(x), lambda: x) if probability else x


def _colour(crop: Tensor, d: Decisions, view: View) -> Tensor:
    """The colour work on one crop: uint8 -> float32 [s, s, 3] in [0, 1]."""
    import tensorflow as tf

    def gray(x: Tensor) -> Tensor:
        return tf.repeat(tf.image.rgb_to_grayscale(x), 3, axis=-1)

    def solarized(x: Tensor) -> Tensor:
        return tf.where(x < 0.5, x, 1 - x)

    x = tf.cast(crop, tf.float32) / 255
    x = _maybe(view.jitter, d.jitter, lambda x: _jittered(x, d, view), x)
    x = _maybe(view.grayscale, d.grayscale, gray, x)
    x = _maybe(view.blur, d.blur, lambda x: _blurred(x, d.blur_sigma, view), x)
    x = _maybe(view.solarize, d.solarize, solarized, x)
    if view.noise:
        x = tf.clip_by_value(x + d.noise * _gaussian(d.noise_seed, view.size), 0, 1)
    return x


def _jittered(x: Tensor, d: Decisions, view: View) -> Tensor:
    import tensorflow as tf

    strengths = (view.brightness, view.contrast, view.saturation, view.hue)
    operations = (
        lambda x: x * d.brightness,
        lambda x: tf.image.adjust_contrast(x, d.contrast),
        lambda x: tf.image.adjust_saturation(x, d.saturation),
        lambda x: tf.image.adjust_hue(x, d.hue),
    )

    def branch(op: Callable[[Tensor], Tensor], strength: float, x: Tensor) -> Callable[[], Tensor]:
        return lambda: tf.clip_by_value(op(x), 0, 1) if strength else x

    order = tf.gather(tf.constant(ORDERS), tf.cast(d.order, tf.int32))
    for place in range(4):
        pairs = zip(operations, strengths, strict=True)
        x = tf.switch_case(order[place], [branch(op, strength, x) for op, strength in pairs])
    return x


def _blurred(x: Tensor, sigma: Tensor, view: View) -> Tensor:
    import tensorflow as tf

    radius = blur_radius(view)
    taps = tf.exp(-(tf.range(-radius, radius + 1, dtype=tf.float32) ** 2) / (2 * sigma**2))
    taps = tf.tile((taps / tf.reduce_sum(taps))[:, None, None, None], [1, 1, 3, 1])
    margin = [radius, radius]
    x = tf.pad(x[None], [[0, 0], margin, margin, [0, 0]], "REFLECT")
    x = tf.nn.depthwise_conv2d(x, taps, [1, 1, 1, 1], "VALID")
    return tf.nn.depthwise_conv2d(x, tf.transpose(taps, [1, 0, 2, 3]), [1, 1, 1, 1], "VALID")[0]


def _gaussian(seed: Tensor, size: int) -> Tensor:
    """The field of standard normal noise named `seed`: float32 [s, s, 1]; see `device`."""
    import tensorflow as tf

    def mix(h: Tensor) -> Tensor:
        for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
            h = tf.bitwise.bitwise_xor(h, tf.bitwise.right_shift(h, np.uint32(shift)))
            h = h * np.uint32(factor)
        return tf.bitwise.bitwise_xor(h, tf.bitwise.right_shift(h, np.uint32(16)))

    counter = tf.constant(np.arange(2 * size * size, dtype=np.uint32).reshape(2, size, size, 1))
    key = tf.cast(seed, tf.uint32) * np.uint32(0x9E3779B9)
    bits = tf.bitwise.right_shift(mix(mix(counter) + key), np.uint32(8))
    radius, angle = tf.unstack(tf.cast(bits, tf.float32))
    return tf.sqrt(-2 * tf.math.log((radius + 1) / 2**24)) * tf.cos(2 * math.pi / 2**24 * angle)
