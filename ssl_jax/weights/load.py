"""Weights from files: exports of this project, folders of timm's Hub, checkpoints of others."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict

from ssl_jax.errors import BAD_DATA, USAGE, Fault
from ssl_jax.weights import Weights, files, layouts, native, trees, vits
from ssl_jax.weights.trees import IMAGENET

PROGRAMS = ("stablehlo", "savedmodel", "onnx")
TORCH = ("torch", "safetensors")  # kinds of files whose images are taken to be standardised
CUT = ("size", "crop", "classes")
MAX_JSON = 2**24  # bytes


class Found(NamedTuple):
    """Weights, and how their images are to be cut."""

    weights: Weights
    size: int
    crop: float
    classes: tuple[str, ...]
    origin: str


def load(path: pathlib.Path, **hints: Any) -> Found:
    """The weights of the file or folder at `path`.

    Args:
      hints: what the file does not say: `size` in pixels, `crop`, and what the layout's `decode`
        takes, such as `mean` and `std` of images in [0, 1], or `heads` and `pool` of a ViT. Files
        of PyTorch's world are taken to want ImageNet's mean and deviation unless a config beside
        them says otherwise.

    Raises:
      Fault: nothing there, or nothing that this project has a model for; see `weights.files`.
    """
    if (path / "check.json").is_file():
        return _export(path, hints)
    if (path / "config.json").is_file():
        return _timm(path, hints)
    file = files.read(path)
    usual = dict(IMAGENET) if file.kind in TORCH else {}
    return _decoded(file.arrays, path.name, usual | hints)


def _decoded(arrays: Mapping[str, np.ndarray], origin: str, hints: Mapping[str, Any]) -> Found:
    cut = {name: hints[name] for name in CUT if name in hints}
    weights = layouts.decode(arrays, **{k: v for k, v in hints.items() if k not in CUT})
    return _found(weights, origin, cut)


def _found(weights: Weights, origin: str, cut: Mapping[str, Any]) -> Found:
    learned = vits.image_size(weights) if "positions" in weights.model else None
    small = weights.model.get("stem") == "cifar"
    size = cut.get("size") or learned or (32 if small else 224)
    if learned and size != learned:
        raise Fault(f"{origin}: its positions were learned at {learned} pixels, not {size}", USAGE)
    crop = cut.get("crop", 1.0 if small else 0.875)
    return Found(weights, size, crop, tuple(cut.get("classes", ())), origin)


def _export(path: pathlib.Path, hints: Mapping[str, Any]) -> Found:
    """A folder that `ssl_jax.export` wrote."""
    said = _json(path / "check.json")
    kind, model = said.get("format"), said.get("model")
    if kind in PROGRAMS:
        message = f"{path} holds a program ({kind}), not weights: load an export of another format"
        raise Fault(message, USAGE)
    if not isinstance(model, dict) or not isinstance(said.get("size"), int):
        raise Fault(f"{path / 'check.json'} does not say which model it is of", BAD_DATA)
    if hints:
        message = f"{path} is an export, which knows its {', '.join(hints)}; leave it out"
        raise Fault(message, USAGE)
    origin, model = str(said.get("origin") or path.name), trees.tuples(model)
    if kind == "orbax":
        return _found(_orbax(path / "backbone", model), origin, said)
    file = files.read(path / ("model.npz" if kind == "npz" else "model.safetensors"))
    return _found(layouts.decode(file.arrays, model=model), origin, said)


def _orbax(path: pathlib.Path, model: Mapping[str, Any]) -> Weights:
    import orbax.checkpoint as ocp

    try:
        with ocp.StandardCheckpointer() as reader:
            tree = reader.restore(path)
    except Exception as error:  # Orbax and tensorstore have no common ancestor for theirs
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise Fault(f"{path} cannot be restored: {line}", BAD_DATA) from error
    arrays = {name: np.asarray(array) for name, array in flatten_dict(tree, sep="/").items()}
    return native.decode(arrays, model=model)


def _timm(path: pathlib.Path, hints: Mapping[str, Any]) -> Found:
    """A folder in the layout of timm's Hub: config.json and model.safetensors."""
    config = _json(path / "config.json")
    said = config.get("pretrained_cfg")
    if not isinstance(said, dict) or "architecture" not in config:
        message = f"{path} is neither a run, nor an export, nor a folder of timm's Hub"
        raise Fault(message, BAD_DATA)
    known: dict[str, Any] = {
        "mean": tuple(said.get("mean", IMAGENET["mean"])),
        "std": tuple(said.get("std", IMAGENET["std"])),
        "crop": float(said.get("crop_pct", 0.875)),
        "size": int(said.get("input_size", (3, 224, 224))[-1]),
        "classes": config.get("label_names") or (),
    }
    if "num_heads" in (arguments := config.get("model_args") or {}):
        known["heads"] = arguments["num_heads"]
    if config.get("global_pool") == "avg" and str(config["architecture"]).startswith("vit"):
        known["pool"] = "mean"
    return _decoded(files.read(path / "model.safetensors").arrays, path.name, known | dict(hints))


def _json(path: pathlib.Path) -> dict[str, Any]:
    if path.stat().st_size > MAX_JSON:
        raise Fault(f"{path}: larger than any such file is", BAD_DATA)
    try:
        value = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise Fault(f"{path} is not JSON: {error}", BAD_DATA) from error
    if not isinstance(value, dict):
        raise Fault(f"{path} is no JSON object", BAD_DATA)
    return value
