"""ssl_jax's own layout: every array by its own name in one flat file, with the model's arguments.

It holds every encoder and all modules behind it without loss.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from ssl_jax.errors import BAD_DATA, Fault
from ssl_jax.weights import Arrays, Weights, input_channels, trees, vits
from ssl_jax.weights.trees import Path, Shape

LAYOUT = "ssl_jax"
MODEL = "model"
COLLECTIONS = ("params", "batch_stats")


def encode(weights: Weights) -> Arrays:
    """Returns the arrays by names such as "params/conv1/kernel" or "others/<module>/params/...".

    The entry "model" is JSON text. Modules behind the encoder that have no arrays are left out.
    """
    tree = {"params": weights.params, "batch_stats": weights.batch_stats, "others": weights.others}
    arrays = {
        name: np.ascontiguousarray(array).reshape(np.shape(array))
        for name, array in flatten_dict(tree, sep="/").items()
    }
    return arrays | {MODEL: np.array(json.dumps(weights.model))}


def decode(
    arrays: Mapping[str, np.ndarray], *, model: Mapping[str, Any] | str | None = None
) -> Weights:
    """Returns the weights that `encode` received.

    Args:
      arrays: arrays by name.
      model: arguments of `models.get` or their JSON text; required if `arrays` has no "model".

    Raises:
      Fault: if no such model exists, or if arrays are missing, unexpected or misshapen.
    """
    model = _model(arrays, model)
    others: dict[str, Any] = {}
    body: Arrays = {}
    for name, array in arrays.items():
        top, *rest = name.split("/")
        if top == "others" and len(rest) > 2 and rest[1] in COLLECTIONS:
            module = others.setdefault(rest[0], {collection: {} for collection in COLLECTIONS})
            module[rest[1]]["/".join(rest[2:])] = array
        elif name != MODEL:
            body[name] = array
    try:
        others = {
            name: {collection: unflatten_dict(flat, sep="/") for collection, flat in module.items()}
            for name, module in others.items()
        }
    except ValueError as error:  # a name is a prefix of another, as in "a" and "a/b"
        raise Fault(f"{LAYOUT}: conflicting array names: {error}", BAD_DATA) from error
    expected = _shapes(model, body)
    return trees.assemble(LAYOUT, model, expected, body, "/".join, lambda _, a: a, others)


def _model(
    arrays: Mapping[str, np.ndarray], given: Mapping[str, Any] | str | None
) -> dict[str, Any]:
    text: Any = str(arrays[MODEL]) if MODEL in arrays else given
    try:
        model = json.loads(text) if isinstance(text, str) else text
    except json.JSONDecodeError as error:
        raise Fault(f"{LAYOUT}: {MODEL} is not JSON: {error}", BAD_DATA) from error
    if not isinstance(model, Mapping) or not isinstance(model.get("name"), str):
        message = f"{LAYOUT}: {MODEL} has no encoder name; ssl_jax.export writes one"
        raise Fault(message, BAD_DATA)
    return trees.lists_to_tuples(model)


def _shapes(model: Mapping[str, Any], arrays: Arrays) -> dict[Path, Shape]:
    """Returns the shapes of the model's arrays for the images that the arrays imply."""
    shapes = {k.removeprefix("params/"): a.shape for k, a in arrays.items()}
    channels = input_channels(model, shapes)
    if (table := arrays.get("/".join(vits.POSITION_PATH))) is not None and hasattr(
        trees.encoder(model), "patch_size"
    ):
        return vits.shapes(model, len(table), channels)
    for name in ("params/rbm0/kernel", "params/layer0/kernel"):
        if (kernel := arrays.get(name)) is not None and kernel.ndim == 2:
            return trees.shapes(model, (1, len(kernel)), 1)  # dense layers flatten images anyway
    side = getattr(trees.encoder(model), "patch_size", 32)
    return trees.shapes(model, (side, side), channels)
