"""Losses without negatives: they compare the prediction from one view with the other's target."""

import jax
import jax.numpy as jnp
from jax import lax

from ssl_jax.losses.softmax import Metrics, normalise


def byol(prediction: jax.Array, target: jax.Array) -> tuple[jax.Array, Metrics]:
    """BYOL loss: squared distance between unit-length prediction and target, 2 - 2 cos.

    The prediction of each view is compared with the target of the other view. The loss is the sum
    of both directions, averaged over examples. It lies in [0, 8] and equals 4 + 4 * `simsiam`.

    Args:
      prediction: [b, 2, d], outputs of the prediction head, any length. Normalised here; a zero row
        has cosine 0.
      target: [b, 2, d], projections of the same views by the target network; receives no gradient.

    Returns:
      (loss, metrics). The loss is a scalar in float32 or wider. Metrics, without gradient:
      "cosine", mean cosine similarity over both directions.

    Raises:
      ValueError: if the arrays do not both have shape [b, 2, d].

    Source: Grill et al. (arXiv 2006.07733), equation 2, symmetrised as in section 3.1.
    """
    cosine = _cosine(prediction, target)
    return 4 - 4 * cosine, {"cosine": lax.stop_gradient(cosine)}


def simsiam(prediction: jax.Array, target: jax.Array) -> tuple[jax.Array, Metrics]:
    """SimSiam loss: negative cosine similarity, averaged over both directions; lies in [-1, 1].

    Args:
      prediction: [b, 2, d], outputs of the prediction head, as in `byol`.
      target: [b, 2, d], projections of the same views by the same network; receives no gradient.

    Returns:
      (loss, metrics), as in `byol`.

    Raises:
      ValueError: if the arrays do not both have shape [b, 2, d].

    Source: Chen and He (arXiv 2011.10566), equations 1 to 4.
    """
    cosine = _cosine(prediction, target)
    return -cosine, {"cosine": lax.stop_gradient(cosine)}


def _cosine(prediction: jax.Array, target: jax.Array) -> jax.Array:
    """Mean cosine between each view's prediction and the other view's target."""
    if prediction.ndim != 3 or prediction.shape[1] != 2 or prediction.shape != target.shape:
        raise ValueError(
            f"prediction has shape {prediction.shape}, target {target.shape}; "
            "both must be [b, 2, d]"
        )
    other = normalise(lax.stop_gradient(target))[:, ::-1]
    return jnp.mean((normalise(prediction) * other).sum(-1))
