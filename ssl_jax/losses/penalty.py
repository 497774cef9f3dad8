"""Penalties on the size of weights, to be added to a loss."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ssl_jax.losses.tiles import accumulation_dtype

Tree = Any
# Where smooth L1 changes from quadratic to linear: the deviation of a projection head's first
# weights. Most weights are smaller; with the 1 of Girshick, all would be, and the penalty L2.
KNEE = 0.01


def weight_penalty(kind: str, weight: float) -> Callable[[Tree], jax.Array] | None:
    """Returns a function from parameters to `weight` times their penalty; None for "none".

    Args:
      kind: "none", "l2" or "smooth_l1".
      weight: factor of the penalty.

    Raises:
      ValueError: if the kind is unknown or the weight is not a finite number above 0.
    """
    penalties = {"l2": l2, "smooth_l1": smooth_l1}
    if kind not in ("none", *penalties):
        raise ValueError(f"unknown penalty {kind!r}; choose one of: none, {', '.join(penalties)}")
    if kind == "none":
        return None
    if not 0 < weight < math.inf:
        raise ValueError(f"the weight of a penalty must be a finite number above 0, got {weight}")
    return lambda params: weight * penalties[kind](params)


def l2(params: Tree) -> jax.Array:
    """Returns half the sum of the squares of all weights.

    Weights are the parameters with more than one axis: neither biases nor normalisation parameters.
    The gradient is the weight itself.

    Args:
      params: parameters of a module.

    Returns:
      Scalar in float32 or wider.

    Source: Krogh and Hertz, A simple weight decay can improve generalization (NeurIPS 1991),
    equation 2.
    """
    return sum((jnp.square(w).sum() / 2 for w in _weights(params)), jnp.zeros(()))


def smooth_l1(params: Tree) -> jax.Array:
    """Sums w² / (2 KNEE) over all weights w where |w| < KNEE, and |w| - KNEE / 2 elsewhere.

    The gradient is w / KNEE, limited to the range from -1 to 1. A large weight is therefore pulled
    to 0 no harder than one of KNEE.

    Args:
      params: parameters of a module; biases and normalisation parameters do not count, as in `l2`.

    Returns:
      Scalar in float32 or wider.

    Source: Huber, Robust estimation of a location parameter (1964), divided by the knee; Girshick
    (arXiv 1504.08083), equation 3, with the knee 1.
    """

    def size(w: jax.Array) -> jax.Array:
        magnitude = jnp.abs(w)
        quadratic = jnp.square(w) / (2 * KNEE)
        return jnp.where(magnitude < KNEE, quadratic, magnitude - KNEE / 2).sum()

    return sum((size(w) for w in _weights(params)), jnp.zeros(()))


def _weights(params: Tree) -> list[jax.Array]:
    leaves = (w for w in jax.tree.leaves(params) if w.ndim > 1)
    return [w.astype(accumulation_dtype(w.dtype)) for w in leaves]
