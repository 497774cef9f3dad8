"""Learning from the answer to one question: are two examples of the same class?

Like the losses by distance in `losses.metric`, it holds matrices of all pairs of rows: memory grows
with the square of the batch. With rows on several devices each holds its rows of them.
"""

import jax
import jax.numpy as jnp
from jax import lax

from ssl_jax.losses.softmax import Metrics, normalise
from ssl_jax.losses.tiles import wide

EXACT = lax.Precision.HIGHEST  # accelerators would round float32 to 8 or 11 bits by default


def same_pair(
    z: jax.Array,
    posterior: jax.Array,
    *,
    trust: float = 1.0,
    temperature: float = 0.2,
    threshold: float = 0.5,
) -> tuple[jax.Array, jax.Array, Metrics]:
    """Two losses of all pairs of views, by how probably they are of the same class.

    Two examples are so with s, the inner product of their posteriors times `trust`, two views of
    one example with 1. The first loss is the cross-entropy of s and the network's decision,
    sigmoid((cos - threshold) / temperature) of the cosine of two embeddings. Pairs count as the
    same by s and as different by 1 - s; either kind is averaged by itself, so that both weigh the
    same: of k classes only one pair in k or so is of the same. The second loss is the mean squared
    Euclidean distance of the embeddings of same pairs.

    Args:
      z: embeddings [b, v, d], b * v >= 2, of any length.
      posterior: probabilities [b, k] of the classes; without gradient.
      trust: in [0, 1], how probably two examples of one class of the posterior, which is noisy,
        are truly the same; at 0 only views of one example are.
      temperature: > 0, of the decision.
      threshold: the cosine at which both answers are equally probable.

    Returns:
      (cross-entropy in nats, distance, metrics without gradient): "same_recall" and
      "different_recall", the mean probability of the right answer over either kind of pairs. A
      kind that no pair is of counts 0.

    Raises:
      ValueError: wrong shapes, or a number out of its range.

    Source: the decision on all pairs of a batch by their similarity is that of Zhai et al. (arXiv
    2303.15343), equation 1, and s that of Hsu et al. (arXiv 1901.00544), equation 1; the distance
    is that of Hadsell, Chopra and LeCun (CVPR 2006), equation 4.
    """
    if z.ndim != 3 or posterior.ndim != 2 or len(z) != len(posterior):
        raise ValueError(f"z {z.shape}, posterior {posterior.shape}: want [b, v, d] and [b, k]")
    if not temperature > 0 or not 0 <= trust <= 1:
        raise ValueError(f"temperature {temperature}, trust {trust}: want above 0, and [0, 1]")
    b, v, d = z.shape
    z = z.astype(wide(z.dtype)).reshape(b * v, d)
    s = lax.stop_gradient(posterior).astype(z.dtype)
    example = jnp.arange(b * v, dtype=jnp.int32) // v
    s = trust * jnp.matmul(s, s.T, precision=EXACT).repeat(v, axis=0).repeat(v, axis=1)
    s = jnp.where(example[:, None] == example[None, :], 1, s)
    same = jnp.where(jnp.eye(b * v, dtype=bool), 0, s)
    different = 1 - s
    unit = normalise(z)
    logits = (jnp.matmul(unit, unit.T, precision=EXACT) - threshold) / temperature
    entropy = _mean(jax.nn.softplus(-logits), same) + _mean(jax.nn.softplus(logits), different)
    metrics = {
        "same_recall": _mean(jax.nn.sigmoid(logits), same),
        "different_recall": _mean(jax.nn.sigmoid(-logits), different),
    }
    return entropy / 2, _mean(_squared_distances(z), same), lax.stop_gradient(metrics)


def _squared_distances(rows: jax.Array) -> jax.Array:
    # Distances do not depend on the origin; their digits do when rows are close together.
    rows = rows - lax.stop_gradient(rows.mean(0, keepdims=True))
    squares = jnp.square(rows).sum(-1)
    products = jnp.matmul(rows, rows.T, precision=EXACT)
    return squares[:, None] + squares[None, :] - 2 * products


def _mean(x: jax.Array, weight: jax.Array) -> jax.Array:
    def total(x: jax.Array) -> jax.Array:
        # First each row, and XLA shall not join the sums: over all pairs float32 loses a digit.
        return lax.optimization_barrier(x.sum(1)).sum()

    return total(x * weight) / jnp.maximum(total(weight), 1)
