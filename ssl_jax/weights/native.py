"""Our own names in one flat file, with the model beside: every encoder and all behind it, exact."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from ssl_jax.errors import BAD_DATA, Fault
from ssl_jax.weights import Arrays, Weights, trees, vits
from ssl_jax.weights.trees import Path, Shape

LAYOUT = "ssl_jax"
MODEL = "model"
COLLECTIONS = ("params", "batch_stats")


def encode(weights: Weights) -> Arrays:
    """Arrays named "params/conv1/kernel", "batch_stats/...", "others/<module>/params/...", and
    "model", a text of JSON. Modules behind the encoder that have no arrays leave no trace."""
    tree = {"params": weights.params, "batch_stats": weights.batch_stats, "others": weights.others}
    arrays = {
        name: np.ascontiguousarray(array).reshape(np.shape(array))
        for name, array in flatten_dict(tree, sep="/").items()
    }
    return arrays | {MODEL: np.array(json.dumps(weights.model))}


def decode(
    arrays: Mapping[str, np.ndarray], *, model: Mapping[str, Any] | str | None = None
) -> Weights:
    """What `encode` was given.

    Args:
      model: where the file's text is read apart from its arrays: JSON, or what it says.

    Raises:
      Fault: no such model, or arrays that are missing, unexpected or misshapen.
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
    except ValueError as error:  # one name is the beginning of another
        raise Fault(f"{LAYOUT}: names that exclude each other: {error}", BAD_DATA) from error
    want = _shapes(model, body)
    return trees.place(LAYOUT, model, want, body, "/".join, lambda _, a: a, others)


def _model(
    arrays: Mapping[str, np.ndarray], given: Mapping[str, Any] | str | None
) -> dict[str, Any]:
    text: Any = str(arrays[MODEL]) if MODEL in arrays else given
    try:
        model = json.loads(text) if isinstance(text, str) else text
    except json.JSONDecodeError as error:
        raise Fault(f"{LAYOUT}: {MODEL} is no JSON: {error}", BAD_DATA) from error
    if not isinstance(model, Mapping) or not isinstance(model.get("name"), str):
        message = f"{LAYOUT}: {MODEL} says no encoder's name, as ssl_jax.export writes it"
        raise Fault(message, BAD_DATA)
    return trees.tuples(model)


def _shapes(model: Mapping[str, Any], arrays: Arrays) -> dict[Path, Shape]:
    """What the model has, for images of the size that the arrays were made for."""
    if (table := arrays.get("/".join(vits.TABLE))) is not None and hasattr(
        trees.encoder(model), "patch_size"
    ):
        return vits.shapes(model, len(table))
    if (kernel := arrays.get("params/rbm0/kernel")) is not None:
        return trees.shapes(model, (1, len(kernel) // 3))  # a DBN sees pixels in a row
    side = getattr(trees.encoder(model), "patch_size", 32)
    return trees.shapes(model, (side, side))
