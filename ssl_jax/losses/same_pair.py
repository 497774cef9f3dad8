"""Loss of a network that decides whether two examples belong to the same class.

Like the distance losses in `losses.metric`, this loss holds matrices of all pairs of rows, so
memory grows with the square of the batch size. With rows on several devices, each device holds its
rows of these matrices.
"""

import jax
import jax.numpy as jnp
from jax import lax

from ssl_jax.losses.softmax import Metrics, normalise
from ssl_jax.losses.tiles import accumulation_dtype

EXACT = lax.Precision.HIGHEST  # accelerators round float32 to 8 or 11 bits by default


def same_pair(
    z: jax.Array,
    posterior: jax.Array,
    *,
    trust: float = 1.0,
    temperature: float = 0.2,
    threshold: float = 0.5,
) -> tuple[jax.Array, jax.Array, Metrics]:
    """Cross-entropy and distance losses over all pairs of views, for same-class decisions.

    Two views of one example are of the same class with probability 1. Views of two examples are
    with probability s, the inner product of their posteriors times `trust`. The first loss is the
    cross-entropy between s and the network's decision sigmoid((cos - threshold) / temperature),
    where cos is the cosine of two embeddings. A pair counts as "same" with weight s and as
    "different" with weight 1 - s. Each kind is averaged
    separately, so that both weigh the same: with k classes, only about one pair in k is of the same
    class. The second loss is the mean squared Euclidean distance between embeddings, over pairs
    weighted as "same".

    Args:
      z: embeddings [b, v, d], b * v >= 2, any length.
      posterior: class probabilities [b, k]; receive no gradient.
      trust: in [0, 1], probability that two examples with the same (noisy) posterior class truly
        belong together. At 0, only views of one example count as the same.
      temperature: positive; divides the logits of the decision.
      threshold: cosine at which both answers are equally probable.

    Returns:
      (cross-entropy, distance, metrics). The losses are scalars in float32 or wider; the
      cross-entropy is in nats. Metrics, without gradient: "same_recall" and "different_recall",
      mean probability of the right answer over each kind of pair. A kind without pairs counts as 0.

    Raises:
      ValueError: if a shape is wrong, the temperature is not positive, or trust is outside [0, 1].

    Source: the decision on all pairs by their similarity follows Zhai et al. (arXiv 2303.15343),
    equation 1; s follows Hsu et al. (arXiv 1901.00544), equation 1; the distance follows Hadsell,
    Chopra and LeCun (CVPR 2006), equation 4.
    """
    if z.ndim != 3 or posterior.ndim != 2 or len(z) != len(posterior):
        raise ValueError(
            f"z has shape {z.shape}, posterior {posterior.shape}; they must be [b, v, d] and [b, k]"
        )
    if not temperature > 0 or not 0 <= trust <= 1:
        raise ValueError(
            f"temperature must be positive, got {temperature}; trust must be in [0, 1], got {trust}"
        )
    b, v, d = z.shape
    z = z.astype(accumulation_dtype(z.dtype)).reshape(b * v, d)
    posterior = lax.stop_gradient(posterior).astype(z.dtype)
    example = jnp.arange(b * v, dtype=jnp.int32) // v
    agreement = jnp.matmul(posterior, posterior.T, precision=EXACT)
    s = trust * agreement.repeat(v, axis=0).repeat(v, axis=1)
    s = jnp.where(example[:, None] == example[None, :], 1, s)
    same = jnp.where(jnp.eye(b * v, dtype=bool), 0, s)
    different = 1 - s
    unit = normalise(z)
    logits = (jnp.matmul(unit, unit.T, precision=EXACT) - threshold) / temperature
    cross_entropy = _weighted_mean(jax.nn.softplus(-logits), same) + _weighted_mean(
        jax.nn.softplus(logits), different
    )
    metrics = {
        "same_recall": _weighted_mean(jax.nn.sigmoid(logits), same),
        "different_recall": _weighted_mean(jax.nn.sigmoid(-logits), different),
    }
    return (
        cross_entropy / 2,
        _weighted_mean(_squared_distances(z), same),
        lax.stop_gradient(metrics),
    )


def _squared_distances(rows: jax.Array) -> jax.Array:
    # Distances do not depend on the origin, but their rounding errors do when rows are close.
    rows = rows - lax.stop_gradient(rows.mean(0, keepdims=True))
    squares = jnp.square(rows).sum(-1)
    products = jnp.matmul(rows, rows.T, precision=EXACT)
    return squares[:, None] + squares[None, :] - 2 * products


def _weighted_mean(x: jax.Array, weight: jax.Array) -> jax.Array:
    def total(x: jax.Array) -> jax.Array:
        # Sums each row first, and the barrier keeps XLA from joining the two sums: one sum over all
        # pairs would lose a digit in float32.
        return lax.optimization_barrier(x.sum(1)).sum()

    return total(x * weight) / jnp.maximum(total(weight), 1)
