"""What all layouts share: an encoder's arrays by path, and their way to the model's names."""

import functools
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from ssl_jax.errors import BAD_DATA, Fault
from ssl_jax.weights import Arrays, Tree, Weights

Path = tuple[str, ...]
"""("params", "layer1_0", "conv1", "kernel"): the collection first."""
Shape = tuple[int, ...]

SHOWN = 10  # names of a fault
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def encoder(model: Mapping[str, Any]) -> Any:
    """The linen module of a model.

    Raises:
      Fault: there is no such model.
    """
    from ssl_jax import models

    try:
        return models.get(**model)
    except (TypeError, ValueError) as error:
        raise Fault(f"model {dict(model)}: {error}", BAD_DATA) from error


def flatten(params: Tree, batch_stats: Tree) -> dict[Path, np.ndarray]:
    """Arrays by path."""
    return flatten_dict({"params": params, "batch_stats": batch_stats})


def flat(tree: Mapping[str, Any], prefix: str = "") -> Arrays:
    """Arrays of nested mappings by names joined by "/"; Haiku's "//" is a "/" as well."""
    arrays: Arrays = {}
    for key, value in tree.items():
        name = f"{prefix}{key}".replace("//", "/")
        inner = isinstance(value, Mapping)
        arrays |= flat(value, f"{name}/") if inner else {name: np.asarray(value)}
    return arrays


def shapes(model: Mapping[str, Any], image: tuple[int, int]) -> dict[Path, Shape]:
    """Shapes of the encoder's arrays by path, for images of so many rows and columns.

    Raises:
      Fault: no such model, or one that such images do not fit.
    """
    return dict(_shapes(json.dumps(model), image))


@functools.lru_cache(maxsize=64)
def _shapes(model: str, image: tuple[int, int]) -> dict[Path, Shape]:
    import jax

    module = encoder(tuples(json.loads(model)))
    images = jax.ShapeDtypeStruct((1, *image, 3), np.float32)
    try:
        tree = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, False), images)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise Fault(f"model {model}: {error}", BAD_DATA) from error
    return {path: leaf.shape for path, leaf in flatten_dict(tree).items()}


def tuples(model: Mapping[str, Any]) -> dict[str, Any]:
    """A model as it was before it went through JSON: modules must be hashable."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in model.items()}


def place(
    layout: str,
    model: Mapping[str, Any],
    want: Mapping[Path, Shape],
    arrays: Mapping[str, np.ndarray],
    theirs: Callable[[Path], str],
    ours: Callable[[Path, np.ndarray], np.ndarray],
    others: Mapping[str, Tree],
) -> Weights:
    """Weights of the arrays of a file, once every one has its place and fits.

    Args:
      layout: its name, for people.
      want: what the model has, by path.
      arrays: by the layout's names; those of `others` left out.
      theirs: the layout's name of a path.
      ours: an array as it lies at a path.
      others: modules behind the encoder.

    Raises:
      Fault: arrays that are missing, unexpected or misshapen: all names that fit the message.
    """
    paths = {theirs(path): path for path in want}
    found = {name: ours(paths[name], arrays[name]) for name in paths if name in arrays}
    problems = {
        "missing": [name for name in paths if name not in arrays],
        "unexpected": [name for name in arrays if name not in paths],
        "misshapen": [
            f"{name} {list(arrays[name].shape)} (as ours: {list(array.shape)}, "
            f"wanted {list(want[paths[name]])})"
            for name, array in found.items()
            if array.shape != want[paths[name]]
        ],
    }
    if any(problems.values()):
        says = "; ".join(f"{kind}: {listed(names)}" for kind, names in problems.items() if names)
        raise Fault(f"{layout}, read as {describe(model)}: {says}", BAD_DATA)
    tree = unflatten_dict({paths[name]: float32(array) for name, array in found.items()})
    return Weights(dict(model), tree.get("params", {}), tree.get("batch_stats", {}), dict(others))


def listed(names: Iterable[str]) -> str:
    """The first names, and how many more there are."""
    every = list(names)
    more = f" and {len(every) - SHOWN} more" if len(every) > SHOWN else ""
    return ", ".join(every[:SHOWN]) + more


def describe(model: Mapping[str, Any]) -> str:
    """A model in a line: its name, and what is not as usual."""
    options = [f"{k}={v}" for k, v in model.items() if k != "name"]
    return f"{model['name']} ({', '.join(options)})" if options else str(model["name"])


def float32(array: np.ndarray) -> np.ndarray:
    """C-contiguous float32, as a copy of its own only where needed."""
    return np.ascontiguousarray(array, np.float32).reshape(array.shape)


def dense(kernel: np.ndarray, bias: np.ndarray) -> Tree:
    """A classifier's tree; `kernel` [features, classes]."""
    params = {"dense": {"kernel": float32(kernel), "bias": float32(bias)}}
    return {"params": params, "batch_stats": {}}


def classifier(others: Mapping[str, Tree]) -> tuple[np.ndarray, np.ndarray] | None:
    """(kernel [features, classes], bias) of the linear classifier, if there is one."""
    if "classifier" not in others:
        return None
    layer = others["classifier"]["params"]["dense"]
    return layer["kernel"], layer["bias"]


def strip(arrays: Mapping[str, Any], prefix: str) -> Arrays:
    """What lies under a prefix, without it."""
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
