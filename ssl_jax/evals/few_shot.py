"""Few-shot classification of frozen features by ridge regression in closed form."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from ssl_jax.evals import draws as sampling
from ssl_jax.evals import rows

SHOTS = (1, 2, 5, 10, 20, 50, 100)  # labels per class


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
    """Measures ridge regression on one-hot labels of a few examples per class.

    Follows big_vision's few-shot evaluator, with three differences. Features are standardised by
    all train features, labelled or not, instead of the few. The intercept is free instead of a
    large constant feature. The penalty on the squared norm of the weights is the number of
    features instead of 1,024; it is fixed, because no labels are left to choose it.

    Args:
      train_x: float [n, f].
      train_y: int [n], any integers.
      test_x: float [m, f].
      test_y: int [m]; a class that train lacks counts as missed.
      shots: numbers of labels per class. Numbers above the size of the rarest class are left out.
      draws: number of draws of labels. Within a draw, the fewer shots are a subset of the more.
      seed: seed of the draws, which are equal for every feature set.
      sharding: sharding of the test examples; None for one device.

    Returns:
      {"shots", "accuracy", "std", "ci95", "draws"}: lists as long as "shots"; "draws" holds a list
      of accuracies for each.
    """
    _, codes, target = sampling.codes(train_y, test_y)
    allowed = [s for s in sorted(shots) if s <= np.bincount(codes).min()]
    mean, deviation = sampling.moments(train_x)
    test = rows.shard(((test_x - mean) / deviation).astype(np.float32), sharding)
    accuracies: list[list[float]] = [[] for _ in allowed]
    for draw in range(draws):
        rng = np.random.default_rng([seed, draw])
        order = [rng.permutation(np.flatnonzero(codes == c)) for c in range(codes.max() + 1)]
        for i, count in enumerate(allowed):
            used = np.concatenate([rows_of_class[:count] for rows_of_class in order])
            x = ((train_x[used] - mean) / deviation).astype(np.float32)
            weight, bias = ridge(x, jax.nn.one_hot(codes[used], len(order)), float(x.shape[1]))
            predicted = rows.gather(_predict(test, weight, bias))[: len(target)]
            accuracies[i].append(float(np.mean(predicted == target)))
    summaries = [sampling.summary(values) for values in accuracies]
    return {
        "shots": allowed,
        "accuracy": [summary["accuracy"] for summary in summaries],
        "std": [summary["std"] for summary in summaries],
        "ci95": [summary.get("ci95", 0.0) for summary in summaries],
        "draws": accuracies,
    }


@jax.jit
def ridge(x: jax.Array, targets: jax.Array, l2: jax.Array | float) -> tuple[jax.Array, jax.Array]:
    """Minimises ||x weight + bias - targets||^2 + l2 ||weight||^2.

    Takes one Cholesky factorisation of the smaller of the two Gram matrices.

    Args:
      x: float32 [n, f].
      targets: float32 [n, k].
      l2: penalty on the weight, more than 0; the bias has none.

    Returns:
      (weight [f, k], bias [k]).
    """
    n, f = x.shape
    x_mean, target_mean = x.mean(0), targets.mean(0)
    x, targets = x - x_mean[None], targets - target_mean[None]
    gram = _dot(x.T, x) if n >= f else _dot(x, x.T)
    factor = jax.scipy.linalg.cho_factor(gram + l2 * jnp.eye(len(gram), dtype=x.dtype))
    if n >= f:
        weight = jax.scipy.linalg.cho_solve(factor, _dot(x.T, targets))
    else:
        weight = _dot(x.T, jax.scipy.linalg.cho_solve(factor, targets))
    return weight, target_mean - _dot(x_mean, weight)


@jax.jit
def _predict(x: jax.Array, weight: jax.Array, bias: jax.Array) -> jax.Array:
    return jnp.argmax(_dot(x, weight) + bias[None], axis=-1)


def _dot(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.dot(a, b, precision=jax.lax.Precision.HIGHEST)
