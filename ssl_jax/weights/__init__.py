"""Encoders' weights under the names that others give them: readers of files, maps of names.

Nothing here runs code that a file brings along; what a file says is checked before it is believed.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

Tree = Any
Arrays = dict[str, np.ndarray]


class Weights(NamedTuple):
    """An encoder's weights, and what they are weights of."""

    model: dict[str, Any]
    """Arguments of `ssl_jax.models.get` but dtype: {"name": "resnet50", "width": 1.0, ...}."""

    params: Tree  # float32 NumPy arrays
    batch_stats: Tree
    others: dict[str, Tree] = {}  # noqa: RUF012  (a NamedTuple's default is never changed)
    """Modules behind the encoder by name, {"params": tree, "batch_stats": tree} each. A linear
    classifier is "classifier", params {"dense": {"kernel" [f, k], "bias" [k]}}."""


def shapes(tree: Tree) -> dict[str, tuple[int, ...]]:
    """{"layer1_0/conv1/kernel": shape} of every leaf, what two trees are compared by."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(k, simple=True, separator="/"): x.shape for k, x in leaves}
