"""The fields of `config.augment` for images: defaults and checks."""

import difflib
import math
from collections.abc import Mapping
from typing import Any

from ssl_jax.inputs.image.views import View

FIELDS = tuple(View._fields)


def default_fields() -> dict[str, Any]:
    """Returns the defaults of `config.augment`."""
    return {
        **View()._asdict(),
        "placement": "host",  # host | device: where the colour operations run
        "views": 2,  # of full size
        "second": {},  # what differs in all of them but the first
        # Multi-crop, e.g. {"views": 6, "size": 96, "crop_area": (0.05, 0.14)}: how many small crops
        # beside the full-size views, and what differs in them from the first; {} for none.
        "local": {},
    }


def problems(augment: Mapping[str, Any]) -> list[str]:
    """Returns a sentence for every bad value of `config.augment`, given as a dict."""
    unknown = [
        f"augment.{part}.{key}: unknown; {_nearest(key, known)}"
        for part, known in (("second", list(FIELDS)), ("local", [*FIELDS, "views"]))
        for key in augment[part]
        if key not in known
    ]
    if unknown:
        return unknown
    second, local, size = dict(augment["second"]), dict(augment["local"]), augment["size"]
    sentences = []
    if augment["placement"] not in ("host", "device"):
        near = _nearest(str(augment["placement"]), ["host", "device"])
        sentences.append(f"augment.placement={augment['placement']!r}: {near}")
    if augment["views"] < 1:
        sentences.append(f"augment.views={augment['views']!r}: at least 1")
    sentences += _view_problems(View(**{field: augment[field] for field in FIELDS}), "augment")
    # The other fields of these two are View's defaults, which are valid: no mistake is told twice.
    sentences += _view_problems(View(**second), "augment.second")
    if second.get("size", size) != size:
        need = "full-size views have augment.size; smaller ones belong into augment.local"
        sentences.append(f"augment.second.size={second['size']}: {need}")
    if local:
        count = local.pop("views", None)
        if not isinstance(count, int) or count < 1:
            sentences.append(f"augment.local.views={count!r}: how many, at least 1")
        if local.get("size", size) == size:
            need = "another size than augment.size; views of that one are counted by augment.views"
            sentences.append(f"augment.local.size={size}: {need}")
        sentences += _view_problems(View(**local), "augment.local")
    return sentences


def _view_problems(view: View, where: str) -> list[str]:
    sentences = []

    def check(name: str, good: bool, need: str) -> None:
        if not good:
            sentences.append(f"{where}.{name}={getattr(view, name)!r}: {need}")

    check("size", view.size >= 1, "at least 1")
    for name in ("flip", "jitter", "grayscale", "blur", "solarize"):
        check(name, 0 <= getattr(view, name) <= 1, "a probability, in [0, 1]")
    for name in ("brightness", "contrast", "saturation", "noise"):
        check(name, 0 <= getattr(view, name) < math.inf, "a finite number, 0 or more")
    check("hue", 0 <= view.hue <= 0.5, "a fraction of a turn, in [0, 0.5]")
    check("blur_kernel", 0 < view.blur_kernel <= 1, "a fraction of the size, in (0, 1]")
    for name in ("crop_area", "crop_aspect", "blur_sigma"):
        pair = getattr(view, name)
        good = len(pair) == 2 and 0 < pair[0] <= pair[1] < math.inf
        check(name, good, "(low, high) with 0 < low <= high")
    check("crop_area", max(view.crop_area) <= 1, "fractions of the image, at most 1")
    return sentences


def _nearest(word: str, choices: list[str]) -> str:
    match = difflib.get_close_matches(word, choices, n=1, cutoff=0.5)
    return f"did you mean {match[0]!r}?" if match else f"choose from: {', '.join(choices)}"
