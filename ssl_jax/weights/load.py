"""Loads weights from exports, folders in timm's Hub layout, and files of other projects."""

import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict

from ssl_jax.errors import BAD_DATA, USAGE, Fault
from ssl_jax.models.options import IMAGENET
from ssl_jax.weights import Weights, checksums, files, json_metadata, layouts, native, trees, vits

PROGRAMS = ("stablehlo", "savedmodel", "onnx")
TORCH = ("torch", "safetensors")  # kinds of files whose images are standardised by default
IMAGE_FIELDS = ("size", "crop", "classes")
WEIGHT_FILES = ("model.safetensors", "model.npz")
EXPORT_FILES = (checksums.RECORD, "preprocess.json")  # either one marks the folder of an export
METADATA_FILES = (*EXPORT_FILES, "config.json")


class LoadedWeights(NamedTuple):
    """Weights and how to cut images for them."""

    weights: Weights
    size: int  # side of the images in pixels
    crop: float  # central part of an image's shorter side, in (0, 1]
    classes: tuple[str, ...]  # names of the classifier's outputs, or ()
    origin: str  # name of the source, for people


def load(path: pathlib.Path, **hints: Any) -> LoadedWeights:
    """Loads the weights of the file or folder at `path`.

    Args:
      path: an export, a folder in timm's Hub layout, a file of weights, or the prefix of a
        TensorFlow checkpoint.
      hints: values that the file does not state: `size` in pixels, `crop`, and the keyword
        arguments of the layout's `decode`. Examples are `mean` and `std` of images in [0, 1], or
        `heads` and `pool` of a ViT. The default `mean` and `std` of PyTorch and safetensors files
        are those of ImageNet. A config.json or check.json beside the file overrides them.

    Raises:
      Fault: if the path does not exist, if an export differs from its checksums, or if no model
        fits the arrays; see also `files.read`.
    """
    # A file of an export may have been renamed, and may be read only after comparing checksums.
    beside = METADATA_FILES if path.name in WEIGHT_FILES else (checksums.RECORD,)
    if path.is_file() and _has_any(path.parent, beside):
        path = path.parent  # the JSON files there state how to cut images
    if _has_any(path, EXPORT_FILES):
        return _load_export(path, hints)
    if (path / "config.json").is_file():
        return _load_timm(path, hints)
    file = files.read(path)
    defaults: dict[str, Any] = {}
    if file.kind in TORCH and layouts.recognise(file.arrays).decode in layouts.TORCH:
        defaults = dict(IMAGENET)
    if "model" in file.meta:
        defaults["model"] = file.meta["model"]
    return _decode(file.arrays, path.name, defaults | hints)


def _has_any(folder: pathlib.Path, names: Iterable[str]) -> bool:
    return any((folder / name).is_file() for name in names)


def _decode(
    arrays: Mapping[str, np.ndarray], origin: str, hints: Mapping[str, Any]
) -> LoadedWeights:
    image = {name: hints[name] for name in IMAGE_FIELDS if name in hints}
    weights = layouts.decode(arrays, **{k: v for k, v in hints.items() if k not in IMAGE_FIELDS})
    return _loaded_weights(weights, origin, image)


def _loaded_weights(weights: Weights, origin: str, image: Mapping[str, Any]) -> LoadedWeights:
    """Adds the defaults of `IMAGE_FIELDS`, and checks that they fit the weights."""
    learned = vits.image_size(weights) if "positions" in weights.model else None
    small = weights.model.get("stem") == "cifar"
    size = image.get("size") or learned or (32 if small else 224)
    classes = tuple(image.get("classes", ()))
    layer = trees.classifier(weights.others)
    if classes and (layer is None or len(classes) != len(layer[1])):
        raise Fault(f"{origin}: {len(classes)} class names do not fit its classifier", BAD_DATA)
    if learned and size != learned:
        raise Fault(f"{origin}: its positions were learned at {learned} pixels, not {size}", USAGE)
    crop = image.get("crop", 1.0 if small else 0.875)
    return LoadedWeights(weights, size, crop, classes, origin)


def _load_export(path: pathlib.Path, hints: Mapping[str, Any]) -> LoadedWeights:
    """Loads a folder that `ssl_jax.export` wrote."""
    record = checksums.read_verified(path)
    check = json_metadata.check_fields(record, path / checksums.RECORD)
    kind, model = check["format"], trees.lists_to_tuples(check["model"])
    if kind in PROGRAMS:
        message = f"{path} holds a program ({kind}), not weights: load an export of another format"
        raise Fault(message, USAGE)
    if hints:
        message = f"{path} is an export, which states its own {', '.join(hints)}"
        raise Fault(f"{message}. Do not pass {', '.join(hints)}", USAGE)
    origin = check["origin"] or path.name
    if kind == "orbax":
        return _loaded_weights(_restore_orbax(path / "backbone", model), origin, check)
    file = files.read(path / ("model.npz" if kind == "npz" else "model.safetensors"))
    return _loaded_weights(layouts.decode(file.arrays, model=model), origin, check)


def _restore_orbax(path: pathlib.Path, model: Mapping[str, Any]) -> Weights:
    import orbax.checkpoint as ocp

    try:
        with ocp.StandardCheckpointer() as reader:
            tree = reader.restore(path)
    except Exception as error:  # Orbax and tensorstore share no base class of exceptions
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise Fault(f"{path} cannot be restored: {line}", BAD_DATA) from error
    arrays = {name: np.asarray(array) for name, array in flatten_dict(tree, sep="/").items()}
    return native.decode(arrays, model=model)


def _load_timm(path: pathlib.Path, hints: Mapping[str, Any]) -> LoadedWeights:
    """Loads a folder in timm's Hub layout: config.json and model.safetensors."""
    config = json_metadata.read_timm_config(path / "config.json")
    name = config.pop("architecture")
    arrays = files.read(path / "model.safetensors").arrays
    loaded = _decode(arrays, path.name, config | dict(hints))
    inferred = loaded.weights.model["name"]
    is_vit = inferred.startswith("vit") and json_metadata.VIT_NAMES.fullmatch(name)
    if inferred != name and not is_vit:
        message = f"{path}: config.json names {name}, but the arrays are those of {inferred}"
        raise Fault(message, BAD_DATA)
    return loaded
