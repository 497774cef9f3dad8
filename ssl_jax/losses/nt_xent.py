"""NT-Xent, the loss of SimCLR."""

import jax
import jax.numpy as jnp
import numpy as np

Metrics = dict[str, jax.Array]


def nt_xent(z: jax.Array, *, temperature: float | jax.Array) -> tuple[jax.Array, Metrics]:
    """Normalised temperature-scaled cross-entropy over all views of the global batch.

    Each of the 2b views is an anchor once: its positive is the other view of its example, its
    negatives are the 2(b - 1) views of all other examples; it never meets itself. The loss is the
    mean over the 2b anchors. SimCLR's own code reports the sum over the two views, twice this.

    Sharded on b, the similarities stay sharded by anchor and only the embeddings are gathered.

    Args:
      z: projections [b, 2, d], b >= 2, of any length (normalised here; a zero row stays zero).
        Computed in float32, or in float64 if z is.
      temperature: > 0.

    Returns:
      The scalar loss in nats, and metrics, scalars without gradient: "contrastive_accuracy",
      share of anchors closer to their positive than to every negative; "entropy" of the softmax
      over the 2b - 1 others in nats; "alignment", mean squared distance of unit-length positives.

    Raises:
      ValueError: wrong shape, b < 2, or a Python number as temperature that is not positive.

    Source: SimCLR (arXiv 2002.05709), equation 1; alignment: Wang and Isola (arXiv 2005.10242).
    """
    if z.ndim != 3 or z.shape[0] < 2 or z.shape[1] != 2:
        raise ValueError(f"z of shape {z.shape}: want [b, 2, d] with b of at least 2")
    if isinstance(temperature, int | float | np.number) and not temperature > 0:
        raise ValueError(f"temperature {temperature}: want a number above 0")
    rows = 2 * len(z)
    unit = _normalise(z.astype(jnp.promote_types(z.dtype, jnp.float32))).reshape(rows, -1)
    # Full precision: accelerators would round the similarities to 8 or 11 bits, then divide by the
    # temperature.
    similarity = jnp.matmul(unit, unit.T, precision=jax.lax.Precision.HIGHEST)
    anchor = jax.lax.broadcasted_iota(jnp.int32, (rows, rows), 0)
    other = jax.lax.broadcasted_iota(jnp.int32, (rows, rows), 1)
    is_positive = other == anchor ^ 1  # the views of an example are neighbours
    is_negative = other // 2 != anchor // 2
    logits = similarity / temperature
    positive = jnp.where(is_positive, logits, 0).sum(1)
    negatives = jax.nn.logsumexp(logits, axis=1, where=is_negative)
    # log(e^p + Σe^n) - p, without the cancellation that eats a small loss.
    losses = jax.nn.softplus(negatives - positive)
    metrics = _metrics(*jax.lax.stop_gradient((logits, positive, losses)), is_negative)
    metrics["alignment"] = 2 - 2 * temperature * jax.lax.stop_gradient(positive).mean()
    return losses.mean(), metrics


def _metrics(
    logits: jax.Array, positive: jax.Array, losses: jax.Array, is_negative: jax.Array
) -> Metrics:
    nearest = jnp.max(logits, axis=1, where=is_negative, initial=-jnp.inf)
    # log p = -surprise; an anchor's loss is the surprise of its positive.
    surprise = (losses + positive)[:, None] - logits
    entropy = jnp.where(is_negative, surprise * jnp.exp(-surprise), 0).sum(1)
    return {
        "contrastive_accuracy": (positive > nearest).mean(dtype=logits.dtype),
        "entropy": (entropy + losses * jnp.exp(-losses)).mean(),
    }


def _normalise(z: jax.Array) -> jax.Array:
    """Rows of unit length. Division by the largest element first: the square of a huge one
    overflows. The result does not depend on that element, so neither does the gradient."""
    largest = jax.lax.stop_gradient(jnp.abs(z).max(-1, keepdims=True))
    z = z / jnp.where(largest > 0, largest, 1)
    squares = jnp.square(z).sum(-1, keepdims=True)
    return z * jax.lax.rsqrt(jnp.where(squares > 0, squares, 1))
