"""Networks that a method uses without training them."""

from collections.abc import Callable
from typing import NamedTuple

import jax

from ssl_jax.methods import Tree


class FrozenNetwork(NamedTuple):
    """A trained encoder whose activations a method compares."""

    weights: Tree
    """Parameters and statistics, NumPy arrays."""

    activations: Callable[[Tree, jax.Array], list[jax.Array]]
    """(weights, images [n, h, w, c] in [0, 1]) -> output of each block, [n, ...], for inference."""


def fetched(weights: Tree) -> Tree:
    """Returns the weights, fetched by a callback inside of jit.

    As constants, the program text would contain every number. A big network has too many.
    """
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), weights)
    return jax.pure_callback(lambda: weights, shapes)
