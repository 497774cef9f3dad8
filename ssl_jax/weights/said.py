"""What JSON beside weights says of them, checked before anything is built from it."""

import json
import math
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any

from ssl_jax import models
from ssl_jax.errors import BAD_DATA, Fault
from ssl_jax.weights.trees import IMAGENET

MAX_JSON = 2**24  # bytes
MAX_SIDE = 2**13  # pixels
# timm's names of networks that are ours: others have the same arrays and compute something else.
VITS = re.compile(r"(vit|deit)_(tiny|small|base|large)_patch\d+_\d+")
VIT_ARGS = ("img_size", "patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio", "fc_norm")
ARGS = (*VIT_ARGS, "global_pool", "num_classes")


def _number(low: float, high: float) -> Callable[[Any], bool]:
    def check(value: Any) -> bool:
        real = isinstance(value, int | float) and not isinstance(value, bool)
        return real and math.isfinite(value) and low < value <= high

    return check


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_SIDE


def _three(low: float) -> Callable[[Any], bool]:
    def check(value: Any) -> bool:
        return _row(value) and len(value) == 3 and all(map(_number(low, math.inf), value))

    return check


def _row(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _text(value: Any) -> bool:
    return isinstance(value, str)


MODEL: dict[str, Callable[[Any], bool]] = {
    "name": lambda value: value in models.names(),
    "width": _number(0, 64),
    "sk_ratio": _number(-1e-9, 1),
    **dict.fromkeys(("stem", "padding", "pool", "positions", "visible"), _text),
    "zero_gamma": lambda value: isinstance(value, bool),
    **dict.fromkeys(("patch_size", "mlp_ratio"), _whole),
    "mean": _three(-math.inf),
    "std": _three(0),
    "widths": lambda value: _row(value) and 0 < len(value) < 64 and all(map(_whole, value)),
    "sigma": _number(0, math.inf),
}
CUT: dict[str, Callable[[Any], bool]] = {
    "size": _whole,
    "crop": _number(0, 1),
    "classes": lambda value: _row(value) and all(map(_text, value)),
    "origin": _text,
}


def read(path: pathlib.Path) -> dict[str, Any]:
    """The object in a JSON file; Fault if it is none."""
    if path.stat().st_size > MAX_JSON:
        raise Fault(f"{path}: larger than any such file is", BAD_DATA)
    try:
        value = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise Fault(f"{path} is not JSON: {error}", BAD_DATA) from error
    if not isinstance(value, dict):
        raise Fault(f"{path} is no JSON object", BAD_DATA)
    return value


def export(file: pathlib.Path) -> dict[str, Any]:
    """{"format", "model", "size", "crop", "classes", "origin"} of an export's check.json.

    Raises:
      Fault: one of them is missing or nothing that an export writes.
    """
    said = read(file)
    model = said.get("model")
    if not isinstance(model, dict) or not _text(said.get("format")):
        raise Fault(f"{file} does not say which model it is of, in which format", BAD_DATA)
    _require(file, {"name": None} | model, MODEL, "model.")
    cut = {"crop": 1.0, "classes": [], "origin": "", "size": None} | said
    _require(file, {name: cut[name] for name in CUT}, CUT, "")
    return {name: cut[name] for name in CUT} | {"model": model, "format": said["format"]}


def timm(file: pathlib.Path) -> dict[str, Any]:
    """Hints of a config.json of timm's Hub: how images are cut, `heads` and `pool` of ViTs, and
    "architecture".

    Raises:
      Fault: it is none, or of a network that ours only look like.
    """
    config = read(file)
    cut, name = config.get("pretrained_cfg"), config.get("architecture")
    if not isinstance(cut, dict) or not _text(name):
        message = f"{file.parent} is neither a run, nor an export, nor a folder of timm's Hub"
        raise Fault(message, BAD_DATA)
    args = config.get("model_args") or {}
    odd = [arg for arg in args if arg not in ARGS] if isinstance(args, dict) else ["model_args"]
    if odd:
        message = f"{file}: {name} with {', '.join(map(str, odd))} is no network of ours"
        raise Fault(message, BAD_DATA)
    vit = VITS.fullmatch(str(name)) is not None
    if not vit and name not in models.RESNETS:
        raise Fault(
            f"{file}: {name} is no network of ours, though its arrays may fit one", BAD_DATA
        )
    sides = cut.get("input_size", (3, 224, 224))
    hints = {
        "mean": cut.get("mean", IMAGENET["mean"]),
        "std": cut.get("std", IMAGENET["std"]),
        "crop": cut.get("crop_pct", 0.875),
        "size": sides[-1] if _row(sides) and sides else None,
        "classes": config.get("label_names") or [],
    }
    _require(file, hints, CUT | MODEL, "")
    hints |= {"mean": tuple(hints["mean"]), "std": tuple(hints["std"]), "architecture": name}
    if vit and "num_heads" in args:
        hints["heads"] = args["num_heads"]
    if vit and "avg" in (config.get("global_pool"), args.get("global_pool")):
        hints["pool"] = "mean"
    return hints


def _require(
    file: pathlib.Path,
    values: Mapping[str, Any],
    checks: Mapping[str, Callable[[Any], bool]],
    prefix: str,
) -> None:
    for name, value in values.items():
        if name not in checks or not checks[name](value):
            shown = repr(value)[:60]
            raise Fault(f"{file}: {prefix}{name} = {shown} is nothing that belongs there", BAD_DATA)
