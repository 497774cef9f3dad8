"""Learning from the answer to one question: are two examples of the same class?

Like the losses by distance in `losses.metric`, it holds matrices of all pairs of rows: memory grows
with the square of the batch. With rows on several devices each holds its rows of them.
"""

import jax
import jax.numpy as jnp
from jax import lax

from ssl_jax.losses.softmax import Metrics
from ssl_jax.losses.tiles import wide

EPSILON = 1e-7  # of the authors' code: a probability of exactly 0 has a logarithm and a gradient


def same_pair(
    logits: jax.Array, z: jax.Array, label: jax.Array
) -> tuple[jax.Array, jax.Array, Metrics]:
    """Two losses of all pairs of rows, by whether their labels are the same.

    The first is the cross-entropy of that answer, P(same) being the inner product of the two
    softmaxes: what the classes are called does not matter to it. Same and different pairs are
    averaged apart and count as much as each other, where the paper adds up all pairs: of k classes
    only one pair in k or so is of the same. The second is the mean squared Euclidean distance of
    same pairs.

    Args:
      logits: [b, v, k] of v views, b * v >= 2.
      z: embeddings [b, v, d], taken as they are.
      label: integers [b]; without gradient.

    Returns:
      (cross-entropy in nats, distance, metrics without gradient): "same_recall" and
      "different_recall", the mean P of the right answer over either kind of pairs. Without pairs
      of a kind its part is 0.

    Raises:
      ValueError: wrong shapes.

    Source: Hsu et al. (arXiv 1901.00544), equation 4; the distance of Hadsell, Chopra and LeCun
    (CVPR 2006), equation 4, without its half for different pairs.
    """
    if logits.ndim != 3 or z.ndim != 3 or logits.shape[:2] != z.shape[:2]:
        raise ValueError(f"logits {logits.shape}, z {z.shape}: want [b, v, k] and [b, v, d]")
    if label.shape != logits.shape[:1]:
        raise ValueError(f"label of shape {label.shape}: want {logits.shape[:1]}")
    b, v = z.shape[:2]
    p, rows = (x.astype(wide(x.dtype)).reshape(b * v, -1) for x in (logits, z))
    p = jax.nn.softmax(p)
    of_row = jnp.repeat(label, v)
    # Accelerators would round float32 to 8 or 11 bits by default.
    p_same, p_different = (jnp.matmul(p, q.T, precision=lax.Precision.HIGHEST) for q in (p, 1 - p))
    same = of_row[:, None] == of_row[None, :]
    different = ~same
    same &= ~jnp.eye(b * v, dtype=bool)
    entropy = (
        _mean(-jnp.log(p_same + EPSILON), same) + _mean(-jnp.log(p_different + EPSILON), different)
    ) / 2
    metrics = {
        "same_recall": _mean(p_same, same),
        "different_recall": _mean(p_different, different),
    }
    return entropy, _mean(_squared_distances(rows), same), lax.stop_gradient(metrics)


def _squared_distances(rows: jax.Array) -> jax.Array:
    # Distances do not depend on the origin; their digits do when rows are close together.
    rows = rows - lax.stop_gradient(rows.mean(0, keepdims=True))
    squares = jnp.square(rows).sum(-1)
    products = jnp.matmul(rows, rows.T, precision=lax.Precision.HIGHEST)
    return squares[:, None] + squares[None, :] - 2 * products


def _mean(x: jax.Array, where: jax.Array) -> jax.Array:
    return jnp.where(where, x, 0).sum() / jnp.maximum(where.sum(dtype=x.dtype), 1)
