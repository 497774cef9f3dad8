"""Distance losses on two views of every example: contrastive loss with a margin, and triplets.

A hinge on a distance is not a function of an inner product alone, and mining looks at all
negatives of an anchor at once. Unlike the softmax losses, these losses therefore hold matrices of
size 2b x 2b (up to five with the gradient), so memory grows with the square of the batch size. With
rows on several devices, each device holds its rows of these matrices. The symmetric triplet loss
compares the first views with the second views only, so its matrices have the size b x b.
"""

import jax
import jax.numpy as jnp
from jax import lax

from ssl_jax.losses.softmax import Metrics, normalise
from ssl_jax.losses.tiles import accumulation_dtype

MINING = ("semi_hard", "batch_hard", "all")


def margin_contrastive(z: jax.Array, *, margin: float = 1.0) -> tuple[jax.Array, Metrics]:
    """Contrastive loss with a margin on the Euclidean distance D.

    The loss is half the mean of D² over positive pairs plus half the mean of max(0, margin - D)²
    over negative pairs. Positive pairs are the two views of one example. Negative pairs are all
    pairs of views of different examples. Each kind is averaged separately, so that the b positives
    weigh as much as the 2b (b - 1) negatives. Two rows at the same position give each other no
    gradient: no direction is preferred there.

    Args:
      z: embeddings [b, 2, d], b >= 2, used as they are (not normalised).
      margin: positive; negatives farther apart than this distance have no loss.

    Returns:
      (loss, metrics). The loss is a scalar in float32 or wider. Metrics, without gradient:
      "positive_distance" and "negative_distance", mean Euclidean distances; "active", fraction of
      negative pairs within the margin.

    Raises:
      ValueError: if z does not have shape [b, 2, d] with b >= 2, or the margin is not positive.

    Source: Hadsell, Chopra and LeCun, Dimensionality reduction by learning an invariant mapping
    (CVPR 2006), equation 4.
    """
    _check(z, margin)
    z = z.astype(accumulation_dtype(z.dtype))
    positive, squared, negative = _squared_distances(z)
    hinge = jnp.where(negative, jax.nn.relu(margin - _root(squared)), 0)
    loss = (positive.mean() + jnp.square(hinge).sum() / _negative_pair_count(len(z))) / 2
    return loss, _metrics(
        positive, squared, negative, _active_fraction(hinge, _negative_pair_count(len(z)))
    )


def triplet(
    z: jax.Array, *, margin: float = 0.2, mining: str = "semi_hard"
) -> tuple[jax.Array, Metrics]:
    """Triplet loss: mean of max(0, D²(anchor, positive) - D²(anchor, negative) + margin).

    D is the Euclidean distance between unit-length embeddings. It is squared for every kind of
    mining. Each of the 2b views is an anchor. Its positive is the other view of the same example,
    and its negatives are the 2(b - 1) views of all other examples. `mining` selects the negatives:

    "semi_hard": the nearest negative that is farther away than the positive. If there is none, the
      nearest negative; FaceNet leaves this case open.
    "batch_hard": the nearest negative.
    "all": every negative. The mean is over all triplets, including those with zero loss.

    Negatives at exactly the same distance share the gradient equally. A negative exactly as far
    away as the positive does not count as farther.

    Args:
      z: embeddings [b, 2, d], b >= 2, any length (normalised here; a zero row stays zero).
      margin: positive, in units of squared distance, which is at most 4.
      mining: "semi_hard", "batch_hard" or "all".

    Returns:
      (loss, metrics). The loss is a scalar in float32 or wider. Metrics, without gradient:
      "positive_distance" and "negative_distance", mean Euclidean distances over all pairs;
      "active", fraction of the selected triplets whose loss is above 0.

    Raises:
      ValueError: if z does not have shape [b, 2, d] with b >= 2, the margin is not positive, or the
        mining is unknown.

    Source: FaceNet (Schroff et al., arXiv 1503.03832), sections 3.1 and 3.2; "batch_hard" and
    "all": Hermans et al. (arXiv 1703.07737), equations 5 and 6.
    """
    _check(z, margin, mining)
    positive, squared, negative = _squared_distances(normalise(z))
    hinge = _hinge(jnp.repeat(positive, 2)[:, None], squared, negative, margin, mining)
    count = _negative_pair_count(len(z)) if mining == "all" else hinge.size
    return hinge.sum() / count, _metrics(
        positive, squared, negative, _active_fraction(hinge, count)
    )


def symmetric_triplet(
    z: jax.Array, *, margin: float = 0.2, mining: str = "semi_hard"
) -> tuple[jax.Array, Metrics]:
    """Triplet loss between the two sides of the pairs, in both directions.

    The first views a and the second views p are the two sides. The pair (a_i, p_i) is the positive
    of both directions, and the negatives of each side are on the other side:

      max(0, D²(a_i, p_i) - D²(a_i, p_j) + margin) + max(0, D²(a_i, p_i) - D²(p_i, a_j) + margin)

    for j != i. The loss is the mean over both directions and all i; with mining "all", also over
    all j. Unlike in `triplet`, views of the same side are never compared, so that nothing pushes
    apart two images that were only augmented alike.

    Args:
      z: embeddings [b, 2, d], b >= 2, any length (normalised here; a zero row stays zero).
      margin: positive, in units of squared distance, which is at most 4.
      mining: how j is selected, as in `triplet`.

    Returns:
      (loss, metrics), as in `triplet`. "negative_distance" is the mean over the b (b - 1) negative
      pairs of both sides.

    Raises:
      ValueError: as in `triplet`.

    Source: Kiros et al. (arXiv 1411.2539), section 2.2, with "all"; VSE++ (Faghri et al.,
    arXiv 1707.05612), equation 6, with "batch_hard". Both compare images with sentences, and use
    the cosine, which is 1 - D² / 2.
    """
    _check(z, margin, mining)
    b, unit = len(z), normalise(z)
    positive = jnp.square(unit[:, 0] - unit[:, 1]).sum(-1)
    squared = _distances_of_sides(unit)
    index = jnp.arange(b, dtype=jnp.int32)
    negative = index[:, None] != index[None, :]
    sides = (squared, squared.T)
    first, second = (_hinge(positive[:, None], d, negative, margin, mining) for d in sides)
    pairs = b * (b - 1)
    count = 2 * (pairs if mining == "all" else b)
    metrics = {
        "positive_distance": _root(positive).mean(),
        "negative_distance": jnp.where(negative, _root(squared), 0).sum() / pairs,
        "active": _active_fraction(first, count) + _active_fraction(second, count),
    }
    return (first.sum() + second.sum()) / count, lax.stop_gradient(metrics)


def _squared_distances(z: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Squared distances between views z [b, 2, d].

    Returns:
      (distances of positive pairs [b], distances of all pairs of rows [2b, 2b], bool mask [2b, 2b]
      of negative pairs).
    """
    b = len(z)
    rows = z.reshape(2 * b, -1)
    # Distances do not depend on the origin, but their rounding errors do when rows are close.
    rows = rows - lax.stop_gradient(rows.mean(0, keepdims=True))
    squares = jnp.square(rows).sum(-1)
    # By default, accelerators would round float32 products to 8 or 11 bits.
    products = jnp.matmul(rows, rows.T, precision=lax.Precision.HIGHEST)
    squared = jax.nn.relu(squares[:, None] + squares[None, :] - 2 * products)
    example = jnp.arange(2 * b, dtype=jnp.int32) // 2
    negative = example[:, None] != example[None, :]
    return jnp.square(z[:, 0] - z[:, 1]).sum(-1), squared, negative


def _distances_of_sides(unit: jax.Array) -> jax.Array:
    """Squared distances [b, b] from the first to the second views of unit rows [b, 2, d]."""
    # Distances do not depend on the origin, but their rounding errors do when rows are close.
    rows = unit - lax.stop_gradient(unit.mean((0, 1), keepdims=True))
    squares = jnp.square(rows).sum(-1)
    products = jnp.matmul(rows[:, 0], rows[:, 1].T, precision=lax.Precision.HIGHEST)
    return jax.nn.relu(squares[:, :1] + squares[None, :, 1] - 2 * products)


def _hinge(
    to_positive: jax.Array, squared: jax.Array, negative: jax.Array, margin: float, mining: str
) -> jax.Array:
    """Hinges of the triplets that the mining selects: [n, m] for "all", [n, 1] for the others.

    Args:
      to_positive: squared distance of each anchor to its positive, [n, 1].
      squared: squared distances of the anchors to other rows, [n, m].
      negative: mask [n, m] of the negatives.
      margin, mining: as in `triplet`.
    """
    if mining == "all":
        return jnp.where(negative, jax.nn.relu(to_positive - squared + margin), 0)
    farther_than = to_positive if mining == "semi_hard" else None
    return jax.nn.relu(to_positive - _nearest(squared, negative, farther_than) + margin)


def _nearest(squared: jax.Array, negative: jax.Array, farther_than: jax.Array | None) -> jax.Array:
    """Squared distance [n, 1] to the nearest negative, preferably one beyond `farther_than`."""
    negatives = jnp.where(negative, squared, jnp.inf)
    nearest = negatives.min(1, keepdims=True)
    if farther_than is None:
        return nearest
    farther = jnp.where(negatives > farther_than, negatives, jnp.inf).min(1, keepdims=True)
    return jnp.where(jnp.isinf(farther), nearest, farther)


def _root(squared: jax.Array) -> jax.Array:
    """Square root with gradient 0 instead of infinity at 0."""
    apart = squared > 0
    return jnp.where(apart, jnp.sqrt(jnp.where(apart, squared, 1)), 0)


def _negative_pair_count(b: int) -> int:
    """Number of ordered pairs of views of different examples."""
    return 2 * b * (2 * b - 2)


def _active_fraction(hinge: jax.Array, count: int) -> jax.Array:
    return (hinge > 0).sum(dtype=hinge.dtype) / count


def _metrics(
    positive: jax.Array, squared: jax.Array, negative: jax.Array, active: jax.Array
) -> Metrics:
    metrics = {
        "positive_distance": _root(positive).mean(),
        "negative_distance": jnp.where(negative, _root(squared), 0).sum()
        / _negative_pair_count(len(positive)),
        "active": active,
    }
    return lax.stop_gradient(metrics)


def _check(z: jax.Array, margin: float, mining: str = "all") -> None:
    if z.ndim != 3 or z.shape[0] < 2 or z.shape[1] != 2:
        raise ValueError(f"z has shape {z.shape}; it must be [b, 2, d] with b at least 2")
    if not margin > 0:
        raise ValueError(f"margin must be positive, got {margin}")
    if mining not in MINING:
        raise ValueError(f"unknown mining {mining!r}; choose one of: {', '.join(MINING)}")
