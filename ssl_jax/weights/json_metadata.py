"""Reads and validates JSON files beside weights: check.json of an export, config.json of timm.

Every value is validated before anything is built from it.
"""

import json
import math
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any

from ssl_jax import models
from ssl_jax.errors import BAD_DATA, Fault
from ssl_jax.models.options import IMAGENET

MAX_JSON = 2**24  # bytes
MAX_SIDE = 2**13  # pixels
# timm's names and arguments of networks that this project has. Other networks of timm have the
# same arrays but compute something else.
VIT_NAMES = re.compile(r"(vit|deit)_(tiny|small|base|large)_patch\d+_\d+")
VIT_ARGS = ("img_size", "patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio", "fc_norm")
ARGS = (*VIT_ARGS, "global_pool", "num_classes")


def _number(low: float, high: float) -> Callable[[Any], bool]:
    def check(value: Any) -> bool:
        real = isinstance(value, int | float) and not isinstance(value, bool)
        return real and math.isfinite(value) and low < value <= high

    return check


def _positive_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_SIDE


def _per_channel(low: float) -> Callable[[Any], bool]:
    def check(value: Any) -> bool:
        number = _number(low, math.inf)
        return _sequence(value) and len(value) in (1, 3, 4) and all(map(number, value))

    return check


def _sequence(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _channel_numbers(value: Any) -> bool:
    return _sequence(value) and all(isinstance(n, int) and 0 <= n < MAX_SIDE for n in value)


def _string(value: Any) -> bool:
    return isinstance(value, str)


MODEL_FIELDS: dict[str, Callable[[Any], bool]] = {
    "name": lambda value: value in models.names(),
    "width": _number(0, 64),
    "sk_ratio": _number(-1e-9, 1),
    **dict.fromkeys(("stem", "padding", "colors", "norm", "pool", "positions"), _string),
    **dict.fromkeys(("visible", "kind"), _string),
    **dict.fromkeys(("first", "second"), _channel_numbers),
    "zero_gamma": lambda value: isinstance(value, bool),
    **dict.fromkeys(("patch_size", "mlp_ratio"), _positive_int),
    **dict.fromkeys(("patch", "patch_stride"), lambda value: value == 0 or _positive_int(value)),
    "mean": _per_channel(-math.inf),
    "std": _per_channel(0),
    "widths": lambda value: (
        _sequence(value) and 0 < len(value) < 64 and all(map(_positive_int, value))
    ),
    "sigma": _number(0, math.inf),
}
IMAGE_FIELDS: dict[str, Callable[[Any], bool]] = {
    "size": _positive_int,
    "crop": _number(0, 1),
    "classes": lambda value: _sequence(value) and all(map(_string, value)),
    "origin": _string,
}


def read(path: pathlib.Path) -> dict[str, Any]:
    """Returns the object of a JSON file.

    Raises:
      Fault: if the file is larger than `MAX_JSON` or does not hold a JSON object.
    """
    if path.stat().st_size > MAX_JSON:
        raise Fault(f"{path} is larger than {MAX_JSON:,} bytes, the limit for JSON files", BAD_DATA)
    try:
        value = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise Fault(f"{path} is not JSON: {error}", BAD_DATA) from error
    if not isinstance(value, dict):
        raise Fault(f"{path} is not a JSON object", BAD_DATA)
    return value


def check_fields(check: Mapping[str, Any], path: pathlib.Path) -> dict[str, Any]:
    """Returns "format", "model", "size", "crop", "classes" and "origin" of an export's check.json.

    Args:
      check: contents of the file.
      path: path of the file, for error messages.

    Raises:
      Fault: if a value is missing or invalid.
    """
    model = check.get("model")
    if not isinstance(model, dict) or not _string(check.get("format")):
        raise Fault(f"{path} does not name the model and the format of the export", BAD_DATA)
    _require(path, {"name": None} | model, MODEL_FIELDS, "model.")
    check = {"crop": 1.0, "classes": [], "origin": "", "size": None, **check}
    image = {name: check[name] for name in IMAGE_FIELDS}
    _require(path, image, IMAGE_FIELDS, "")
    return image | {"model": model, "format": check["format"]}


def read_timm_config(path: pathlib.Path) -> dict[str, Any]:
    """Returns hints from a config.json of timm: how to cut images, and the "architecture".

    The hints of a ViT may also have `heads` and `pool`.

    Raises:
      Fault: if the file is not a config of timm, or if its network is not one of this project. A
        network whose arrays merely fit is refused as well.
    """
    config = read(path)
    image, name = config.get("pretrained_cfg"), config.get("architecture")
    if not isinstance(image, dict) or not _string(name):
        message = f"{path.parent} is not a run, an export or a folder in timm's Hub layout"
        raise Fault(message, BAD_DATA)
    args = config.get("model_args") or {}
    unknown = [arg for arg in args if arg not in ARGS] if isinstance(args, dict) else ["model_args"]
    if unknown:
        message = f"{path}: {name} with {', '.join(map(str, unknown))} is not supported"
        raise Fault(message, BAD_DATA)
    vit = VIT_NAMES.fullmatch(str(name)) is not None
    if not vit and name not in models.RESNETS:
        raise Fault(
            f"{path}: {name} is not supported, even if its arrays fit a supported network", BAD_DATA
        )
    sides = image.get("input_size", (3, 224, 224))
    hints = {
        "mean": image.get("mean", IMAGENET["mean"]),
        "std": image.get("std", IMAGENET["std"]),
        "crop": image.get("crop_pct", 0.875),
        "size": sides[-1] if _sequence(sides) and sides else None,
        "classes": config.get("label_names") or [],
    }
    _require(path, hints, IMAGE_FIELDS | MODEL_FIELDS, "")
    hints |= {"mean": tuple(hints["mean"]), "std": tuple(hints["std"]), "architecture": name}
    if vit and "num_heads" in args:
        hints["heads"] = args["num_heads"]
    if vit and "avg" in (config.get("global_pool"), args.get("global_pool")):
        hints["pool"] = "mean"
    return hints


def _require(
    path: pathlib.Path,
    values: Mapping[str, Any],
    checks: Mapping[str, Callable[[Any], bool]],
    prefix: str,
) -> None:
    """Raises Fault for the first value that has no check or fails it."""
    for name, value in values.items():
        if name not in checks or not checks[name](value):
            shown = repr(value)[:60]
            raise Fault(f"{path}: {prefix}{name} = {shown} is not valid there", BAD_DATA)
