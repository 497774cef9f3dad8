"""The specification of a random view, and the random decisions for one view, as plain data.

The sampler and the host executor (`inputs.image.host`, TensorFlow) and the device executor
(`inputs.image.device`, JAX) read this specification.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ssl_jax.errors import BAD_CONFIG, Fault

Value = Any  # a number, or an array of numbers of NumPy, TensorFlow or JAX


class View(NamedTuple):
    """A random view of an image. The operations run in the order of the fields.

    Colour values lie in [0, 1] and are clipped to this range after every operation. Brightness,
    contrast and saturation factors are drawn uniformly from [max(0, 1 - strength), 1 + strength].
    Hue shifts are drawn uniformly from [-strength, strength].
    """

    size: int = 224  # side of the square view in pixels
    crop_area: tuple[float, float] = (0.08, 1.0)  # fraction of the image's area
    crop_aspect: tuple[float, float] = (3 / 4, 4 / 3)  # width / height, drawn log-uniformly
    interpolation: str = "bicubic"  # or "bilinear"; of the crop's resize, which is antialiased
    flip: float = 0.5  # probability of mirroring left to right
    jitter: float = 0.8  # probability that the next four operations are applied, in random order
    brightness: float = 0.8  # strength; multiplies the values
    contrast: float = 0.8  # strength; scales around the mean of each channel
    saturation: float = 0.8  # strength; multiplies HSV's saturation
    hue: float = 0.2  # strength; fraction of a full turn of HSV's hue
    grayscale: float = 0.2  # probability
    blur: float = 0.5  # probability
    blur_sigma: tuple[float, float] = (0.1, 2.0)  # range of the standard deviation, in pixels
    blur_kernel: float = 0.1  # width as a fraction of `size`, made odd; 0: the whole Gaussian
    solarize: float = 0.0  # probability; inverts the values from 0.5 up
    noise: float = 0.0  # largest standard deviation of Gaussian noise; drawn uniformly from 0


class Decisions(NamedTuple):
    """Every random decision for one view, and the layout of the vector shipped to the device.

    The position of a field is the number of its random draw. New fields are therefore appended,
    never inserted. Every value is a float32, including whole numbers. An operation that the View
    switches off has the value 0.
    """

    top: Value = 0  # of the crop box, in pixels of the source image
    left: Value = 0
    height: Value = 0
    width: Value = 0
    flip: Value = 0  # 1: mirror left to right
    jitter: Value = 0  # 1: apply the operations of the next five fields
    order: Value = 0  # row of ORDERS
    brightness: Value = 0  # factor
    contrast: Value = 0  # factor
    saturation: Value = 0  # factor
    hue: Value = 0  # shift in turns
    grayscale: Value = 0  # 1: apply
    blur: Value = 0  # 1: apply
    blur_sigma: Value = 0  # pixels
    solarize: Value = 0  # 1: apply
    noise: Value = 0  # standard deviation
    noise_seed: Value = 0  # seed of the Gaussian noise, below 2**23


BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
ORDERS = tuple(itertools.permutations((BRIGHTNESS, CONTRAST, SATURATION, HUE)))
INTERPOLATIONS = ("bicubic", "bilinear")
WHOLE_GAUSSIAN = 4  # standard deviations on each side, 99.96 % of the variance


def split(views: Sequence[View]) -> tuple[tuple[View, ...], tuple[View, ...]]:
    """Returns (full-size views, local views).

    Full-size views have the size of the first view; local views have one other size. Local views
    are the small crops of multi-crop (SwAV, arXiv 2006.09882).

    Raises:
      Fault: a third size, or a full-size view after a local view.
    """
    full = tuple(itertools.takewhile(lambda view: view.size == views[0].size, views))
    local = tuple(views[len(full) :])
    if len({view.size for view in local}) > 1:
        sizes = [view.size for view in views]
        raise Fault(
            "views need one size, or two sizes with all views of the first size first; got sizes "
            f"{sizes}",
            BAD_CONFIG,
        )
    return full, local


def groups(views: Sequence[View]) -> tuple[tuple[str, tuple[View, ...]], ...]:
    """Returns (prefix, views) of each size: ("", full-size views) and ("local_", local views).

    The names of a batch's arrays start with the prefix: "views" and "local_views", "decisions" and
    "local_decisions".
    """
    full, local = split(views)
    return (("", full), ("local_", local)) if local else (("", full),)


def views_from_fields(augment: Mapping[str, Any]) -> tuple[View, ...]:
    """Returns the random views of an image: the full-size views first, then the local crops.

    The order is also the order of the random draws: the first view, `views` - 1 other full-size
    views with the changes in `second`, and the local crops with the changes in `local`.

    Args:
      augment: fields of `config.augment`.
    """
    first = View(**{field: augment[field] for field in View._fields})
    others = [first._replace(**augment["second"])] * (augment["views"] - 1)
    changes = dict(augment["local"])
    count = changes.pop("views", 0)
    return (first, *others, *[first._replace(**changes)] * count)


def factors(strength: float) -> tuple[float, float]:
    """Returns the range (low, high) of a multiplicative jitter factor."""
    return max(0.0, 1 - strength), 1 + strength


def blur_radius(view: View) -> int:
    """Returns the number of kernel taps on each side of the centre (224 pixels: 11, width 23).

    A `blur_kernel` of 0 keeps the whole Gaussian of the largest `blur_sigma` (2: 8, width 17), up
    to the size of the view, because the blur mirrors each edge once.
    """
    if view.blur_kernel:
        return int(view.blur_kernel * view.size) // 2
    return math.ceil(min(WHOLE_GAUSSIAN * view.blur_sigma[1], view.size - 1))
