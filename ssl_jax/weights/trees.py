"""Helpers that all layouts share: names and shapes of an encoder's arrays, and assembling them."""

import functools
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from ssl_jax.errors import BAD_DATA, Fault
from ssl_jax.weights import Arrays, Tree, Weights

Path = tuple[str, ...]
"""Path of an array, with the collection first: ("params", "layer1_0", "conv1", "kernel")."""
Shape = tuple[int, ...]

SHOWN = 10  # names that an error message lists


def encoder(model: Mapping[str, Any]) -> Any:
    """Returns the linen module that `model` describes.

    Raises:
      Fault: if no such model exists.
    """
    from ssl_jax import models

    try:
        return models.get(**model)
    except (TypeError, ValueError) as error:
        raise Fault(f"model {dict(model)}: {error}", BAD_DATA) from error


def flatten_paths(params: Tree, batch_stats: Tree) -> dict[Path, np.ndarray]:
    """Returns the arrays of both collections by path."""
    return flatten_dict({"params": params, "batch_stats": batch_stats})


def flatten_names(tree: Mapping[str, Any], prefix: str = "") -> Arrays:
    """Returns the arrays of nested mappings by names joined with "/".

    Haiku's separator "//" becomes "/" too.
    """
    arrays: Arrays = {}
    for key, value in tree.items():
        name = f"{prefix}{key}".replace("//", "/")
        nested = isinstance(value, Mapping)
        arrays |= flatten_names(value, f"{name}/") if nested else {name: np.asarray(value)}
    return arrays


def shapes(
    model: Mapping[str, Any], image: tuple[int, int], channels: int = 3
) -> dict[Path, Shape]:
    """Returns the shapes of the encoder's arrays by path.

    Args:
      model: arguments of `ssl_jax.models.get`.
      image: rows and columns of the images in pixels.
      channels: channels of the images.

    Raises:
      Fault: if no such model exists, or if it does not support images of this size.
    """
    return dict(_shapes(json.dumps(model), (*image, channels)))


@functools.lru_cache(maxsize=64)
def _shapes(model: str, image: tuple[int, int, int]) -> dict[Path, Shape]:
    import jax

    module = encoder(lists_to_tuples(json.loads(model)))
    images = jax.ShapeDtypeStruct((1, *image), np.float32)
    try:
        tree = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, False), images)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise Fault(f"model {model}: {error}", BAD_DATA) from error
    return {path: leaf.shape for path, leaf in flatten_dict(tree).items()}


def lists_to_tuples(model: Mapping[str, Any]) -> dict[str, Any]:
    """Replaces the lists that JSON makes by tuples, since fields of modules must be hashable."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in model.items()}


def assemble(
    layout: str,
    model: Mapping[str, Any],
    expected: Mapping[Path, Shape],
    arrays: Mapping[str, np.ndarray],
    theirs: Callable[[Path], str],
    ours: Callable[[Path, np.ndarray], np.ndarray],
    others: Mapping[str, Tree],
) -> Weights:
    """Builds `Weights` from the arrays of a file; every array must have a place and fit it.

    Args:
      layout: name of the layout, for error messages.
      model: arguments of `ssl_jax.models.get`.
      expected: shapes of the model's arrays by path.
      arrays: arrays of the encoder by the layout's names, without those of `others`.
      theirs: maps a path to the layout's name.
      ours: maps (path, array of the file) to the array at that path.
      others: modules behind the encoder.

    Raises:
      Fault: if arrays are missing, unexpected or misshapen. The message lists the first names of
        each kind.
    """
    paths = {theirs(path): path for path in expected}
    placed = {name: ours(paths[name], arrays[name]) for name in paths if name in arrays}
    problems = {
        "missing": [name for name in paths if name not in arrays],
        "unexpected": [name for name in arrays if name not in paths],
        "misshapen": [
            f"{name} {list(arrays[name].shape)} (converted to {list(array.shape)}, "
            f"expected {list(expected[paths[name]])})"
            for name, array in placed.items()
            if array.shape != expected[paths[name]]
        ],
    }
    if any(problems.values()):
        text = "; ".join(
            f"{kind}: {list_names(names)}" for kind, names in problems.items() if names
        )
        raise Fault(f"{layout}, read as {describe(model)}: {text}", BAD_DATA)
    tree = unflatten_dict({paths[name]: float32(array) for name, array in placed.items()})
    return Weights(dict(model), tree.get("params", {}), tree.get("batch_stats", {}), dict(others))


def list_names(names: Iterable[str]) -> str:
    """Returns the first names in one line, and the number of names left out."""
    every = list(names)
    more = f" and {len(every) - SHOWN} more" if len(every) > SHOWN else ""
    return ", ".join(every[:SHOWN]) + more


def describe(model: Mapping[str, Any]) -> str:
    """Returns the model's name and arguments in one line."""
    options = [f"{k}={v}" for k, v in model.items() if k != "name"]
    return f"{model['name']} ({', '.join(options)})" if options else str(model["name"])


def float32(array: np.ndarray) -> np.ndarray:
    """Returns the array as C-contiguous float32; copies only if necessary."""
    return np.ascontiguousarray(array, np.float32).reshape(array.shape)


def dense_tree(kernel: np.ndarray, bias: np.ndarray) -> Tree:
    """Returns the tree of a linear classifier.

    Args:
      kernel: [features, classes].
      bias: [classes].
    """
    params = {"dense": {"kernel": float32(kernel), "bias": float32(bias)}}
    return {"params": params, "batch_stats": {}}


def classifier(others: Mapping[str, Tree]) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns (kernel [features, classes], bias [classes]) of the linear classifier, or None."""
    if "classifier" not in others:
        return None
    layer = others["classifier"]["params"]["dense"]
    return layer["kernel"], layer["bias"]


def strip_prefix(arrays: Mapping[str, Any], prefix: str) -> Arrays:
    """Returns the arrays whose names start with `prefix`, by their names without it."""
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
