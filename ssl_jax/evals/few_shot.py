"""Few-shot classification of frozen features by ridge regression, in closed form."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from ssl_jax.evals import draws as sampling
from ssl_jax.evals import rows

SHOTS = (1, 2, 5, 10, 20, 50, 100)


def evaluate(
    train_x: np.ndarray,
    train_y: np.ndarray,
    test_x: np.ndarray,
    test_y: np.ndarray,
    *,
    shots: Sequence[int] = SHOTS,
    draws: int = 5,
    seed: int = 0,
    sharding: NamedSharding | None = None,
) -> dict[str, Any]:
    """Test accuracy of ridge regression on one-hot labels of a few examples of every class.

    As in big_vision's evaluator but for three points: features are standardised by all train
    features (labelled or not) instead of the few, the intercept is free instead of a large constant
    feature, and the penalty on the squared norm of the weights is the number of features instead of
    1,024. It is fixed: so few labels leave none to choose it by.

    Args:
      train_x: float [n, f].
      train_y: int [n], any integers.
      test_x: float [m, f].
      test_y: int [m]; a class that train lacks counts as missed.
      shots: labels of every class; those that the rarest class does not have are left out.
      draws: how often labels are drawn; in one draw, fewer shots are among the more.
      seed: of the draws, which are the same for every feature set.
      sharding: over whose devices test examples are divided.

    Returns:
      {"shots", "accuracy", "std", "ci95", "draws"}, lists as long as "shots"; "draws" of lists.
    """
    _, codes, target = sampling.codes(train_y, test_y)
    allowed = [s for s in sorted(shots) if s <= np.bincount(codes).min()]
    mean, deviation = sampling.moments(train_x)
    test = rows.spread(((test_x - mean) / deviation).astype(np.float32), sharding)
    found: list[list[float]] = [[] for _ in allowed]
    for draw in range(draws):
        rng = np.random.default_rng([seed, draw])
        order = [rng.permutation(np.flatnonzero(codes == c)) for c in range(codes.max() + 1)]
        for place, count in enumerate(allowed):
            used = np.concatenate([of_class[:count] for of_class in order])
            x = ((train_x[used] - mean) / deviation).astype(np.float32)
            weight, bias = ridge(x, jax.nn.one_hot(codes[used], len(order)), float(x.shape[1]))
            predicted = rows.gather(_predict(test, weight, bias))[: len(target)]
            found[place].append(float(np.mean(predicted == target)))
    each = [sampling.summary(accuracies) for accuracies in found]
    return {
        "shots": allowed,
        "accuracy": [one["accuracy"] for one in each],
        "std": [one["std"] for one in each],
        "ci95": [one.get("ci95", 0.0) for one in each],
        "draws": found,
    }


@jax.jit
def ridge(x: jax.Array, targets: jax.Array, l2: jax.Array | float) -> tuple[jax.Array, jax.Array]:
    """The weight [f, k] and bias [k] of least ||x weight + bias - targets||^2 + l2 ||weight||^2.

    One Cholesky factorisation of the smaller of the two Gram matrices.

    Args:
      x: float32 [n, f].
      targets: float32 [n, k].
      l2: more than 0; the bias is free.
    """
    n, f = x.shape
    middle, height = x.mean(0), targets.mean(0)
    x, targets = x - middle[None], targets - height[None]
    gram = _dot(x.T, x) if n >= f else _dot(x, x.T)
    factor = jax.scipy.linalg.cho_factor(gram + l2 * jnp.eye(len(gram), dtype=x.dtype))
    if n >= f:
        weight = jax.scipy.linalg.cho_solve(factor, _dot(x.T, targets))
    else:
        weight = _dot(x.T, jax.scipy.linalg.cho_solve(factor, targets))
    return weight, height - _dot(middle, weight)


@jax.jit
def _predict(x: jax.Array, weight: jax.Array, bias: jax.Array) -> jax.Array:
    return jnp.argmax(_dot(x, weight) + bias[None], axis=-1)


def _dot(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.dot(a, b, precision=jax.lax.Precision.HIGHEST)
