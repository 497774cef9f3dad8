"""What a view is, and what was decided for one: plain data, read by both executors.

The sampler and the host executor (`augment.host`, TensorFlow) and the device executor
(`augment.device`, JAX) all read this one specification.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ssl_jax.errors import BAD_CONFIG, Fault

Value = Any  # a number, or an array of numbers of NumPy, TensorFlow or JAX


class View(NamedTuple):
    """One random view of an image; the fields are applied in this order.

    Colour values are fractions of the [0, 1] range and are clipped to it after every operation.
    Factors are drawn uniformly: brightness, contrast and saturation from
    [max(0, 1 - strength), 1 + strength], hue from [-strength, strength].
    """

    size: int = 224  # pixels, square
    crop_area: tuple[float, float] = (0.08, 1.0)  # fraction of the image's area
    crop_aspect: tuple[float, float] = (3 / 4, 4 / 3)  # width / height, drawn log-uniformly
    flip: float = 0.5  # probability
    jitter: float = 0.8  # probability that the four operations below are applied, in random order
    brightness: float = 0.8  # multiplicative
    contrast: float = 0.8  # about the mean of each channel
    saturation: float = 0.8  # of HSV
    hue: float = 0.2  # fraction of a full turn of HSV's hue
    grayscale: float = 0.2  # probability
    blur: float = 0.5  # probability
    blur_sigma: tuple[float, float] = (0.1, 2.0)  # pixels of the crop; drawn for every image
    blur_kernel: float = 0.1  # kernel width as a fraction of `size`, made odd
    solarize: float = 0.0  # probability; threshold 0.5
    noise: float = 0.0  # Gaussian noise's largest standard deviation; drawn uniformly from 0


class Decisions(NamedTuple):
    """Every random choice made for one view; also the layout of the vector that ships them.

    A field's position is the number of its random draw: append, never insert or reorder.
    Every value is a float32, whole numbers too; an operation that the View switches off has 0.
    """

    top: Value = 0  # crop box, pixels of the source image
    left: Value = 0
    height: Value = 0
    width: Value = 0
    flip: Value = 0  # 1: mirrored left to right
    jitter: Value = 0  # 1: the next five are applied
    order: Value = 0  # row of ORDERS
    brightness: Value = 0
    contrast: Value = 0
    saturation: Value = 0
    hue: Value = 0  # turns
    grayscale: Value = 0  # 1: applied
    blur: Value = 0  # 1: applied
    blur_sigma: Value = 0  # pixels
    solarize: Value = 0  # 1: applied
    noise: Value = 0  # standard deviation
    noise_seed: Value = 0  # below 2**23, names one field of Gaussian noise


BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
ORDERS = tuple(itertools.permutations((BRIGHTNESS, CONTRAST, SATURATION, HUE)))


def split(views: Sequence[View]) -> tuple[tuple[View, ...], tuple[View, ...]]:
    """(full-size views, local views): those of the first's size, then those of one other size.

    The local views are the small crops of multi-crop (SwAV, arXiv 2006.09882); () without them.

    Raises Fault (bad config) for a third size, or a full-size view after a local one.
    """
    full = tuple(itertools.takewhile(lambda view: view.size == views[0].size, views))
    local = tuple(views[len(full) :])
    if len({view.size for view in local}) > 1:
        sizes = [view.size for view in views]
        raise Fault(
            f"views have one size, or two with all of the first's size first; got sizes {sizes}",
            BAD_CONFIG,
        )
    return full, local


def groups(views: Sequence[View]) -> tuple[tuple[str, tuple[View, ...]], ...]:
    """Returns (prefix, views) of each size: ("", full-size views) and ("local_", local views).

    The prefix stands before the names of a batch's arrays: "views" and "local_views", "decisions"
    and "local_decisions".
    """
    full, local = split(views)
    return (("", full), ("local_", local)) if local else (("", full),)


def views_from_fields(augment: Mapping[str, Any]) -> tuple[View, ...]:
    """Returns the random views of an image: the full-size views first, then the local crops.

    The sampler draws in this order: the first view of `augment`, `views` - 1 others with the
    changes in `second`, and the local crops with the changes in `local`.
    """
    first = View(**{field: augment[field] for field in View._fields})
    others = [first._replace(**augment["second"])] * (augment["views"] - 1)
    changes = dict(augment["local"])
    count = changes.pop("views", 0)
    return (first, *others, *[first._replace(**changes)] * count)


def factors(strength: float) -> tuple[float, float]:
    """The range of a multiplicative jitter factor."""
    return max(0.0, 1 - strength), 1 + strength


def blur_radius(view: View) -> int:
    """Taps on either side of the blur kernel's centre (224 pixels: 11, so a width of 23)."""
    return int(view.blur_kernel * view.size) // 2
