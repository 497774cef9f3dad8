"""Losses without negatives: the prediction of one view against the target of the other."""

import jax
import jax.numpy as jnp
from jax import lax

from ssl_jax.losses.softmax import Metrics, normalise


def byol(prediction: jax.Array, target: jax.Array) -> tuple[jax.Array, Metrics]:
    """BYOL's regression: squared distance of unit-length prediction and target, 2 - 2 cos.

    The mean over examples of the sum of both directions: the prediction of each view against the
    target of the other. It lies in [0, 8] and equals 4 + 4 `simsiam`.

    Args:
      prediction: [b, 2, d], outputs of the prediction head, of any length (normalised here; the
        cosine of a zero row is 0).
      target: [b, 2, d], projections of the same views by the target network; gets no gradient.

    Returns:
      The scalar loss, and metrics without gradient: "cosine", mean over both directions.

    Raises:
      ValueError: wrong shapes.

    Source: Grill et al. (arXiv 2006.07733), equation 2, symmetrised as in section 3.1.
    """
    cosine = _cosine(prediction, target)
    return 4 - 4 * cosine, {"cosine": lax.stop_gradient(cosine)}


def simsiam(prediction: jax.Array, target: jax.Array) -> tuple[jax.Array, Metrics]:
    """SimSiam's negative cosine similarity, the mean of both directions; in [-1, 1].

    Arguments, metrics and errors as `byol`, the target being the projection by the same network.

    Source: Chen and He (arXiv 2011.10566), equations 1 to 4.
    """
    cosine = _cosine(prediction, target)
    return -cosine, {"cosine": lax.stop_gradient(cosine)}


def _cosine(prediction: jax.Array, target: jax.Array) -> jax.Array:
    """Mean cosine of predictions and the targets of the other view."""
    if prediction.ndim != 3 or prediction.shape[1] != 2 or prediction.shape != target.shape:
        raise ValueError(
            f"prediction of shape {prediction.shape}, target of shape {target.shape}: "
            "want [b, 2, d] twice"
        )
    other = normalise(lax.stop_gradient(target))[:, ::-1]
    return jnp.mean((normalise(prediction) * other).sum(-1))
