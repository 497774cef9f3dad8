"""Siamese losses on two views of every example: margins on distances between embeddings.

A hinge on a distance is not a function of an inner product alone, and mining looks at all
negatives of an anchor at once: unlike the softmax losses, these hold matrices 2b x 2b, up to five
with the gradient, so memory grows with the square of the batch. With rows on several devices each
holds its rows of them.
"""

import jax
import jax.numpy as jnp
from jax import lax

from ssl_jax.losses.softmax import Metrics, normalise
from ssl_jax.losses.tiles import wide

MINING = ("semi_hard", "batch_hard", "all")


def margin_contrastive(z: jax.Array, *, margin: float = 1.0) -> tuple[jax.Array, Metrics]:
    """Contrastive loss with a margin: half the mean of D² over positive pairs, plus half the mean
    of max(0, margin - D)² over negative pairs, D the Euclidean distance.

    Positive pairs are the two views of an example; negative are all pairs of views of different
    examples. Each kind is averaged by itself, so that the b positives count as much as the
    2b (b - 1) negatives. Two rows at the same place, from where every direction leads apart, get
    no gradient from each other.

    Args:
      z: embeddings [b, 2, d], b >= 2, taken as they are, not normalised.
      margin: > 0, the distance from which on negatives do not matter.

    Returns:
      The scalar loss, and metrics without gradient: "positive_distance" and "negative_distance",
      mean Euclidean distances; "active", the share of negative pairs within the margin.

    Raises:
      ValueError: wrong shape, b < 2, or a margin that is not positive.

    Source: Hadsell, Chopra and LeCun, Dimensionality reduction by learning an invariant mapping
    (CVPR 2006), equation 4.
    """
    _check(z, margin)
    z = z.astype(wide(z.dtype))
    positive, squared, negative = _squared_distances(z)
    hinge = jnp.where(negative, jax.nn.relu(margin - _root(squared)), 0)
    loss = (positive.mean() + jnp.square(hinge).sum() / _pairs(len(z))) / 2
    return loss, _metrics(positive, squared, negative, _share(hinge, _pairs(len(z))))


def triplet(
    z: jax.Array, *, margin: float = 0.2, mining: str = "semi_hard"
) -> tuple[jax.Array, Metrics]:
    """Triplet loss: mean of max(0, D²(anchor, positive) - D²(anchor, negative) + margin).

    D is the Euclidean distance of unit-length embeddings, squared for every kind of mining. Each
    of the 2b views is an anchor; its positive is the other view of its example, its negatives are
    the 2(b - 1) views of all other examples. Mining chooses those that count:

    "semi_hard": the nearest negative that is farther than the positive; the nearest of all where
      none is. FaceNet leaves that case open.
    "batch_hard": the nearest negative.
    "all": every negative; the mean is over all triplets, those at zero included.

    Negatives at exactly the same distance share the gradient equally; one exactly as far as the
    positive is not farther.

    Args:
      z: embeddings [b, 2, d], b >= 2, of any length (normalised here; a zero row stays zero).
      margin: > 0, in units of squared distance, which is at most 4.

    Returns:
      The scalar loss, and metrics without gradient: "positive_distance" and "negative_distance",
      mean Euclidean distances over all pairs; "active", the share of the triplets counted that
      have a loss.

    Raises:
      ValueError: wrong shape, b < 2, a margin that is not positive, or unknown mining.

    Source: FaceNet (Schroff et al., arXiv 1503.03832), sections 3.1 and 3.2; "batch_hard" and
    "all": Hermans et al. (arXiv 1703.07737), equations 5 and 6.
    """
    _check(z, margin)
    if mining not in MINING:
        raise ValueError(f"mining {mining!r}: want one of {', '.join(MINING)}")
    positive, squared, negative = _squared_distances(normalise(z))
    to_positive = jnp.repeat(positive, 2)[:, None]
    if mining == "all":
        hinge = jnp.where(negative, jax.nn.relu(to_positive - squared + margin), 0)
        count = _pairs(len(z))
    else:
        farther_than = to_positive if mining == "semi_hard" else None
        nearest = _nearest(squared, negative, farther_than)
        hinge, count = jax.nn.relu(to_positive - nearest + margin), 2 * len(z)
    return hinge.sum() / count, _metrics(positive, squared, negative, _share(hinge, count))


def _squared_distances(z: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Of views [b, 2, d]: those of positives [b], those of all pairs of rows [2b, 2b], and which of
    these are negative, bool."""
    b = len(z)
    rows = z.reshape(2 * b, -1)
    # Distances do not depend on the origin; their digits do when rows are close together.
    rows = rows - lax.stop_gradient(rows.mean(0, keepdims=True))
    squares = jnp.square(rows).sum(-1)
    # Accelerators would round float32 to 8 or 11 bits by default.
    products = jnp.matmul(rows, rows.T, precision=lax.Precision.HIGHEST)
    squared = jax.nn.relu(squares[:, None] + squares[None, :] - 2 * products)
    example = jnp.arange(2 * b, dtype=jnp.int32) // 2
    negative = example[:, None] != example[None, :]
    return jnp.square(z[:, 0] - z[:, 1]).sum(-1), squared, negative


def _nearest(squared: jax.Array, negative: jax.Array, farther_than: jax.Array | None) -> jax.Array:
    """Smallest squared distance [2b, 1] to a negative, if possible to one that is farther."""
    negatives = jnp.where(negative, squared, jnp.inf)
    nearest = negatives.min(1, keepdims=True)
    if farther_than is None:
        return nearest
    farther = jnp.where(negatives > farther_than, negatives, jnp.inf).min(1, keepdims=True)
    return jnp.where(jnp.isinf(farther), nearest, farther)


def _root(squared: jax.Array) -> jax.Array:
    """Square root whose gradient at 0 is 0, not infinite."""
    apart = squared > 0
    return jnp.where(apart, jnp.sqrt(jnp.where(apart, squared, 1)), 0)


def _pairs(b: int) -> int:
    """Ordered pairs of views of different examples."""
    return 2 * b * (2 * b - 2)


def _share(hinge: jax.Array, count: int) -> jax.Array:
    return (hinge > 0).sum(dtype=hinge.dtype) / count


def _metrics(
    positive: jax.Array, squared: jax.Array, negative: jax.Array, active: jax.Array
) -> Metrics:
    metrics = {
        "positive_distance": _root(positive).mean(),
        "negative_distance": jnp.where(negative, _root(squared), 0).sum() / _pairs(len(positive)),
        "active": active,
    }
    return lax.stop_gradient(metrics)


def _check(z: jax.Array, margin: float) -> None:
    if z.ndim != 3 or z.shape[0] < 2 or z.shape[1] != 2:
        raise ValueError(f"z of shape {z.shape}: want [b, 2, d] with b of at least 2")
    if not margin > 0:
        raise ValueError(f"margin {margin}: want a number above 0")
