"""Weights from files: exports of this project, folders of timm's Hub, checkpoints of others."""

import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict

from ssl_jax.errors import BAD_DATA, USAGE, Fault
from ssl_jax.weights import Weights, files, layouts, native, said, trees, vits
from ssl_jax.weights.trees import IMAGENET

PROGRAMS = ("stablehlo", "savedmodel", "onnx")
TORCH = ("torch", "safetensors")  # kinds of files whose images are taken to be standardised
CUT = ("size", "crop", "classes")
NAMED, BESIDE = ("model.safetensors", "model.npz"), ("check.json", "config.json")


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
    if path.name in NAMED and any((path.parent / name).is_file() for name in BESIDE):
        path = path.parent  # what lies beside says how its images are cut
    if (path / "check.json").is_file():
        return _export(path, hints)
    if (path / "config.json").is_file():
        return _timm(path, hints)
    file = files.read(path)
    usual: dict[str, Any] = {}
    if file.kind in TORCH and layouts.recognise(file.arrays).decode in layouts.TORCH:
        usual = dict(IMAGENET)
    if "model" in file.meta:
        usual["model"] = file.meta["model"]
    return _decoded(file.arrays, path.name, usual | hints)


def _decoded(arrays: Mapping[str, np.ndarray], origin: str, hints: Mapping[str, Any]) -> Found:
    cut = {name: hints[name] for name in CUT if name in hints}
    weights = layouts.decode(arrays, **{k: v for k, v in hints.items() if k not in CUT})
    return _found(weights, origin, cut)


def _found(weights: Weights, origin: str, cut: Mapping[str, Any]) -> Found:
    learned = vits.image_size(weights) if "positions" in weights.model else None
    small = weights.model.get("stem") == "cifar"
    size = cut.get("size") or learned or (32 if small else 224)
    classes = tuple(cut.get("classes", ()))
    layer = trees.classifier(weights.others)
    if classes and (layer is None or len(classes) != len(layer[1])):
        raise Fault(
            f"{origin}: {len(classes)} names of classes do not fit its classifier", BAD_DATA
        )
    if learned and size != learned:
        raise Fault(f"{origin}: its positions were learned at {learned} pixels, not {size}", USAGE)
    crop = cut.get("crop", 1.0 if small else 0.875)
    return Found(weights, size, crop, classes, origin)


def _export(path: pathlib.Path, hints: Mapping[str, Any]) -> Found:
    """A folder that `ssl_jax.export` wrote."""
    told = said.export(path / "check.json")
    kind, model = told["format"], trees.tuples(told["model"])
    if kind in PROGRAMS:
        message = f"{path} holds a program ({kind}), not weights: load an export of another format"
        raise Fault(message, USAGE)
    if hints:
        message = f"{path} is an export, which knows its {', '.join(hints)}; leave it out"
        raise Fault(message, USAGE)
    origin = told["origin"] or path.name
    if kind == "orbax":
        return _found(_orbax(path / "backbone", model), origin, told)
    file = files.read(path / ("model.npz" if kind == "npz" else "model.safetensors"))
    return _found(layouts.decode(file.arrays, model=model), origin, told)


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
    known = said.timm(path / "config.json")
    name = known.pop("architecture")
    found = _decoded(files.read(path / "model.safetensors").arrays, path.name, known | dict(hints))
    held = found.weights.model["name"]
    if held != name and not (held.startswith("vit") and said.VITS.fullmatch(name)):
        raise Fault(f"{path}: config.json says {name}, the arrays are those of {held}", BAD_DATA)
    return found
