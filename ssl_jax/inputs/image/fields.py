"""Fields of the config for images: the random views (`augment`) and options of sources (`data`).

The first view has the fields of `View`. `second` and `local` change some of them in other views.
"""

from collections.abc import Mapping
from typing import Any

from ssl_jax.field import (
    AT_LEAST_1,
    FINITE,
    FINITE_ABOVE_0,
    FREE,
    IDENTITY,
    INFINITY,
    PROBABILITY,
    Field,
    Valid,
    any_value,
    nearest,
    number,
    numbers,
    one_of,
)
from ssl_jax.inputs.image.views import INTERPOLATIONS, View

# Crop and flip without colour operations; the config of a method adds the operations of its recipe.
DEFAULT_VIEW = View(jitter=0.0, grayscale=0.0, blur=0.0)
PLACEMENTS = ("host", "device")
# Fields of a lightly augmented view.
GEOMETRY = ("size", "crop_area", "crop_aspect", "interpolation", "flip")
_RANGE = numbers(
    "(low, high) with 0 < low <= high",
    lambda pair: len(pair) == 2 and 0 < pair[0] <= pair[1] < INFINITY,
)
_AREA = numbers(
    "(low, high), fractions of the image with 0 < low <= high <= 1",
    lambda pair: len(pair) == 2 and 0 < pair[0] <= pair[1] <= 1,
)
_HUE = number("a fraction of a turn, in [0, 0.5]", lambda x: 0 <= x <= 0.5)
_KERNEL = number("a fraction of the size, in [0, 1]", lambda x: 0 <= x <= 1)
_CHANGES = any_value("{} or fields of a view, for example {'blur': 0.1}")
_LOCAL = any_value("{} or, for example, {'views': 6, 'size': 96, 'crop_area': (0.05, 0.14)}")


def _view_field(name: str, meaning: str, valid: Valid, before: Any = ...) -> Field:
    return Field(name, getattr(DEFAULT_VIEW, name), meaning, valid, IDENTITY, before)


VIEW_FIELDS = (
    _view_field("size", "Width and height of a view, in pixels.", AT_LEAST_1),
    _view_field("crop_area", "Range of the crop's area, as a fraction of the image's.", _AREA),
    _view_field("crop_aspect", "Range of the crop's width / height, drawn log-uniformly.", _RANGE),
    _view_field(
        "interpolation",
        "Interpolation of the crop's resize.",
        one_of(*INTERPOLATIONS),
        before="bicubic",
    ),
    _view_field("flip", "Probability of mirroring left to right.", PROBABILITY),
    _view_field("jitter", "Probability of the next four colour operations.", PROBABILITY),
    _view_field("brightness", "Brightness jitter x: a factor drawn from [1 - x, 1 + x].", FINITE),
    _view_field("contrast", "Contrast jitter x: a factor drawn from [1 - x, 1 + x].", FINITE),
    _view_field("saturation", "Saturation jitter x: a factor drawn from [1 - x, 1 + x].", FINITE),
    _view_field("hue", "Hue jitter x: a shift drawn from [-x, x] full turns.", _HUE),
    _view_field("grayscale", "Probability of converting to grey.", PROBABILITY),
    _view_field("blur", "Probability of Gaussian blur.", PROBABILITY),
    _view_field("blur_sigma", "Range of the blur's standard deviation, in pixels.", _RANGE),
    _view_field(
        "blur_kernel",
        "Width of the blur's kernel, as a fraction of `size`; 0: the whole Gaussian.",
        _KERNEL,
    ),
    _view_field("solarize", "Probability of inverting the values above 0.5.", PROBABILITY),
    _view_field("noise", "Largest standard deviation of Gaussian noise.", FINITE),
)
FIELDS = (
    *VIEW_FIELDS,
    Field("placement", "host", "Where the colour operations run.", one_of(*PLACEMENTS), FREE),
    Field("views", 2, "Number of full-size views of an image.", AT_LEAST_1, IDENTITY),
    Field("second", {}, "Changes of all full-size views but the first.", _CHANGES, IDENTITY),
    Field("local", {}, "Number of small crops and their changes; {}: none.", _LOCAL, IDENTITY),
)
DATA_FIELDS = (
    Field(
        "channels",
        3,
        "Channels of images: 1 (grey), 3 (RGB) or 4 (RGBA).",
        AT_LEAST_1,
        IDENTITY,
        before=3,
    ),
    Field(
        "max_megapixels",
        179.0,
        "Largest image, in millions of pixels; a larger one counts as unreadable.",
        FINITE_ABOVE_0,
        FREE,
        before=179.0,
    ),
)


def default_fields() -> dict[str, Any]:
    """Returns the default of `config.augment`."""
    return {field.name: field.default for field in FIELDS}


def light_fields(augment: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of one lightly augmented view: only the crop and flip of `augment`."""
    kept = {name: augment[name] for name in (*GEOMETRY, "placement")}
    return default_fields() | kept | {"views": 1}


def problems(augment: Mapping[str, Any]) -> list[str]:
    """Returns one sentence per mistake in `config.augment`."""
    known = [field.name for field in VIEW_FIELDS]
    unknown = [
        f"augment.{part}.{key}: unknown; {nearest(key, names)}"
        for part, names in (("second", known), ("local", [*known, "views"]))
        for key in augment[part]
        if key not in names
    ]
    if unknown:
        return unknown
    size, second, local = augment["size"], dict(augment["second"]), dict(augment["local"])
    sentences = _range_problems(augment, FIELDS, "augment")
    sentences += _range_problems(second, VIEW_FIELDS, "augment.second")
    if second.get("size", size) != size:
        need = "full-size views have augment.size; smaller views belong in augment.local"
        sentences.append(f"augment.second.size={second['size']}: {need}")
    if local:
        count = local.pop("views", None)
        if not isinstance(count, int) or count < 1:
            sentences.append(f"augment.local.views={count!r}: a whole number, at least 1")
        if local.get("size", size) == size:
            need = "must differ from augment.size; augment.views counts views of that size"
            sentences.append(f"augment.local.size={size}: {need}")
        sentences += _range_problems(local, VIEW_FIELDS, "augment.local")
    return sentences


def _range_problems(
    values: Mapping[str, Any], fields: tuple[Field, ...], section: str
) -> list[str]:
    return [
        f"{section}.{field.name}={values[field.name]!r}: {need}"
        for field in fields
        if field.name in values and (need := field.valid.problem(values[field.name]))
    ]
