"""The sampler of random decisions, and the host executor, both in TensorFlow.

TensorFlow is imported inside the functions, so that the package can be imported without it. The
operations are described in `inputs.image.device`; here TensorFlow's kernels compute them.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ssl_jax.errors import BAD_CONFIG, Fault
from ssl_jax.inputs.image.views import ORDERS, Decisions, View, blur_radius, factors, groups

Tensor = Any  # tf.Tensor
ATTEMPTS = 10  # boxes tried before the fallback, as in Inception's crop
FIELDS = Decisions._fields[4:]  # the decisions other than the crop box
DRAWS = 64  # numbers per view; spare ones allow new fields without changing the values of old ones
KERNELS = {"bicubic": "keyscubic", "bilinear": "triangle"}  # TensorFlow's names
PHILOX = 1  # a fixed generator: TensorFlow's default depends on the device


def make(
    views: Sequence[View], *, seed: int, placement: str
) -> Callable[[Tensor, Tensor, Tensor], dict[str, Tensor]]:
    """Builds the function that makes the random views of one image.

    The function takes (image uint8 [h, w, c] of any size, epoch int64, index int64). It runs
    eagerly or inside `tf.data`'s map. Its result depends only on these arguments, `views` and
    `seed`. It returns a dict of the full-size views:
      placement "host":   "views" float32 [v, s, s, c] in [0, 1];
      placement "device": "views" uint8 [v, s, s, c] and "decisions" float32 [v, len(Decisions)];
                          `device.apply` makes the pixels of placement "host" from them.
    If `groups(views)` has local views, the dict also has "local_views" (and "local_decisions").

    In both placements, the crop is first resized (antialiased), clipped, rounded to uint8 and
    mirrored. The colour operations start from these bytes.

    Raises:
      Fault: unknown placement, or views that `groups` refuses.
    """
    if placement not in ("host", "device"):
        raise Fault(f"placement is 'host' or 'device', not {placement!r}", BAD_CONFIG)
    parts = groups(views)

    def augment(image: Tensor, epoch: Tensor, index: Tensor) -> dict[str, Tensor]:
        import tensorflow as tf

        decisions = _decide(_uniform(seed, epoch, index, len(views)), tf.shape(image), views)
        arrays: dict[str, Tensor] = {}
        for prefix, group in parts:
            group_decisions, decisions = decisions[: len(group)], decisions[len(group) :]
            group_arrays = _views_of_one_size(image, group_decisions, group, placement)
            arrays |= {prefix + name: value for name, value in group_arrays.items()}
        return arrays

    return augment


def _views_of_one_size(
    image: Tensor, decisions: Tensor, views: Sequence[View], placement: str
) -> dict[str, Tensor]:
    """Returns the arrays of the views of one size, stacked; see `make`."""
    import tensorflow as tf

    crops = _crops(image, decisions, views)
    if placement == "device":
        return {"views": tf.stack(crops), "decisions": decisions}
    rows = [Decisions(*tf.unstack(row)) for row in tf.unstack(decisions)]
    triples = zip(crops, rows, views, strict=True)
    return {"views": tf.stack([_colour(crop, d, view) for crop, d, view in triples])}


def center_view(image: Tensor, *, size: int, crop: float) -> Tensor:
    """Returns the evaluation view: the short side resized to size / crop, then the centre cut out.

    Only the window is resampled (bicubic, antialiased), so a very long image costs no more. SimCLR
    and most linear evaluations use size 224 and crop 0.875.

    Args:
      image: uint8 [h, w, c].
      size: side of the view in pixels.
      crop: fraction of the short side that the view shows.

    Returns:
      uint8 [size, size, c].
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
    return tf.ensure_shape(_to_bytes(window[0]), [size, size, image.shape[-1]])


def _to_bytes(pixels: Tensor) -> Tensor:
    import tensorflow as tf

    return tf.saturate_cast(tf.round(pixels), tf.uint8)


def _uniform(seed: int, epoch: Tensor, index: Tensor, views: int) -> Tensor:
    """Returns uniform float32 [v, DRAWS] in [0, 1) that depend only on (seed, epoch, index, view).

    The numbers are multiples of 2**-23. Philox is a bijection of its 128-bit counter, which here
    holds the epoch, the block of four numbers, and the index. No two positions of a run therefore
    share a number. A view has 16 blocks; they are counted in the low 20 bits of the first word.
    """
    import tensorflow as tf

    counter = tf.stack([tf.cast(epoch, tf.int64) * 2**20, tf.cast(index, tf.int64)])
    return tf.raw_ops.StatelessRandomUniformV2(
        shape=[views, DRAWS],
        key=tf.constant([seed % 2**64], tf.uint64),
        counter=tf.cast(counter, tf.uint64),
        alg=PHILOX,
        dtype=tf.float32,
    )


def _decide(uniform: Tensor, shape: Tensor, views: Sequence[View]) -> Tensor:
    """Returns all decisions of all views, float32 [v, len(Decisions)], from uniform [v, DRAWS].

    A few operations handle all views at once, because TensorFlow needs microseconds to start each
    operation.
    """
    import tensorflow as tf

    ranges = np.array([_distributions(view) for view in views])
    probability, low, span, whole = ranges.transpose(2, 0, 1)
    u = uniform[:, 2 * ATTEMPTS + 2 :][:, : len(FIELDS)]
    drawn = tf.cast(u < probability.astype(np.float32), tf.float32)
    drawn += low.astype(np.float32) + span.astype(np.float32) * u
    drawn = tf.where(whole > 0, tf.floor(drawn), drawn)
    return tf.concat([_boxes(uniform, shape, views), drawn], 1)


def _distributions(view: View) -> list[tuple[float, float, float, bool]]:
    """Returns (probability, low, span, whole) for each of FIELDS.

    With u uniform in [0, 1), the decision is (u < probability) + low + span * u. It is rounded down
    if `whole` is True. Operations that are switched off have zeros.
    """

    def chance(probability: float) -> tuple[float, float, float, bool]:
        return probability, 0, 0, False

    def between(low: float, high: float) -> tuple[float, float, float, bool]:
        return 0, low, high - low, False

    fields = {
        "flip": chance(view.flip),
        "grayscale": chance(view.grayscale),
        "blur": chance(view.blur),
        "solarize": chance(view.solarize),
        "noise": between(0, view.noise),
    }
    if view.jitter:
        fields |= {
            "jitter": chance(view.jitter),
            "order": (0, 0, len(ORDERS), True),
            "brightness": between(*factors(view.brightness)),
            "contrast": between(*factors(view.contrast)),
            "saturation": between(*factors(view.saturation)),
            "hue": between(-view.hue, view.hue),
        }
    if view.blur:
        fields["blur_sigma"] = between(*view.blur_sigma)
    if view.noise:
        fields["noise_seed"] = (0, 0, 2**23, True)
    return [fields.get(field, chance(0)) for field in FIELDS]


def _boxes(uniform: Tensor, shape: Tensor, views: Sequence[View]) -> Tensor:
    """Returns top, left, height and width of every view's crop, whole numbers in float32 [v, 4].

    Draws ATTEMPTS boxes of uniform area and log-uniform aspect, and takes the first that fits
    (Szegedy et al. 2015, section 6). If none fits, it takes the largest box with the nearest
    allowed aspect. The position is uniform in both cases, so that the two views of a long image
    differ.
    """
    import tensorflow as tf

    height, width = tf.unstack(tf.cast(shape[:2], tf.float32))
    least, most = np.array([view.crop_area for view in views], np.float32).T[..., None]
    narrow, wide = np.array([view.crop_aspect for view in views], np.float32).T[..., None]
    low, high = np.log(narrow), np.log(wide)
    area = height * width * (least + (most - least) * uniform[:, :ATTEMPTS])
    aspect = tf.exp(low + (high - low) * uniform[:, ATTEMPTS : 2 * ATTEMPTS])
    heights, widths = tf.round(tf.sqrt(area / aspect)), tf.round(tf.sqrt(area * aspect))

    nearest = tf.minimum(tf.maximum(width / height, narrow), wide)  # tf.clip does not broadcast
    last_heights = tf.clip_by_value(tf.round(width / nearest), 1, height)
    last_widths = tf.clip_by_value(tf.round(height * nearest), 1, width)
    heights = tf.concat([heights, last_heights], 1)
    widths = tf.concat([widths, last_widths], 1)

    fits = (heights >= 1) & (heights <= height) & (widths >= 1) & (widths <= width)
    first = tf.argmax(fits, 1)
    h, w = (tf.gather(sizes, first, batch_dims=1) for sizes in (heights, widths))
    place = uniform[:, 2 * ATTEMPTS : 2 * ATTEMPTS + 2]
    top = tf.floor(place[:, 0] * (height - h + 1))
    return tf.stack([top, tf.floor(place[:, 1] * (width - w + 1)), h, w], 1)


def _crops(image: Tensor, decisions: Tensor, views: Sequence[View]) -> list[Tensor]:
    """Cuts out, resizes and mirrors every view; all have one size. Returns uint8 [s, s, c] each."""
    import tensorflow as tf

    size = views[0].size
    edges = tf.pad(tf.cast(decisions[:, :4], tf.int32), [[0, 0], [0, 1]])
    begins = tf.unstack(tf.gather(edges, [0, 1, 4], axis=1))
    extents = tf.unstack(tf.gather(edges - [0, 0, 0, 0, 1], [2, 3, 4], axis=1))  # -1: all channels
    scales = tf.unstack(size / decisions[:, 2:4])
    flips = tf.unstack(decisions[:, Decisions._fields.index("flip")])
    crops = []
    for begin, extent, scale, flip, view in zip(begins, extents, scales, flips, views, strict=True):
        # tf.image.resize calls this operation too. Its checks take as long as a small image.
        crop = tf.raw_ops.ScaleAndTranslate(
            images=tf.slice(image, begin, extent)[None],
            size=[size, size],
            scale=scale,
            translation=[0.0, 0.0],
            kernel_type=KERNELS[view.interpolation],
            antialias=True,
        )
        crop = tf.ensure_shape(_to_bytes(crop[0]), [size, size, image.shape[-1]])
        crops.append(_maybe(view.flip, flip, lambda x: tf.reverse(x, [1]), crop))
    return crops


def _maybe(probability: float, decision: Tensor, op: Callable[[Tensor], Tensor], x: Tensor):
    """Applies `op` if the decision is 1. Builds no branch if the probability is 0."""
    import tensorflow as tf

    return tf.cond(decision > 0, lambda: op(x), lambda: x) if probability else x


def _colour(crop: Tensor, d: Decisions, view: View) -> Tensor:
    """Applies the colour operations to one crop: uint8 -> float32 [s, s, c] in [0, 1]."""
    import tensorflow as tf

    def gray(x: Tensor) -> Tensor:
        return tf.repeat(tf.image.rgb_to_grayscale(x), 3, axis=-1)

    def solarize(x: Tensor) -> Tensor:
        return tf.where(x < 0.5, x, 1 - x)

    x = tf.cast(crop, tf.float32) / 255
    x = _maybe(view.jitter, d.jitter, lambda x: _jitter(x, d, view), x)
    x = _maybe(view.grayscale, d.grayscale, gray, x)
    x = _maybe(view.blur, d.blur, lambda x: _blur(x, d.blur_sigma, view), x)
    x = _maybe(view.solarize, d.solarize, solarize, x)
    if view.noise:
        x = tf.clip_by_value(x + d.noise * _gaussian(d.noise_seed, view.size), 0, 1)
    return x


def _jitter(x: Tensor, d: Decisions, view: View) -> Tensor:
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


def _blur(x: Tensor, sigma: Tensor, view: View) -> Tensor:
    import tensorflow as tf

    radius = blur_radius(view)
    taps = tf.exp(-(tf.range(-radius, radius + 1, dtype=tf.float32) ** 2) / (2 * sigma**2))
    taps = tf.tile((taps / tf.reduce_sum(taps))[:, None, None, None], [1, 1, x.shape[-1], 1])
    margin = [radius, radius]
    x = tf.pad(x[None], [[0, 0], margin, margin, [0, 0]], "REFLECT")
    x = tf.nn.depthwise_conv2d(x, taps, [1, 1, 1, 1], "VALID")
    return tf.nn.depthwise_conv2d(x, tf.transpose(taps, [1, 0, 2, 3]), [1, 1, 1, 1], "VALID")[0]


def _gaussian(seed: Tensor, size: int) -> Tensor:
    """Returns standard normal noise for `seed`: float32 [s, s, 1]; see `device`."""
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
