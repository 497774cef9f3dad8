"""Losses on the statistics of embedding dimensions over the batch: Barlow Twins and VICReg.

Both hold matrices d x d, whatever the batch; with rows on several devices these are sums over all.
"""

import jax
import jax.numpy as jnp
from jax import lax

from ssl_jax.losses.softmax import Metrics
from ssl_jax.losses.tiles import wide

BARLOW_EPSILON = 1e-5  # of the authors' BatchNorm, and what keeps a constant dimension finite
VICREG_EPSILON = 1e-4


def barlow_twins(z: jax.Array, *, lambda_: float = 0.005) -> tuple[jax.Array, Metrics]:
    """Barlow Twins: the cross-correlation of two views, drawn to the identity.

    Each dimension of each view is normalised over the batch as by a BatchNorm without scale and
    bias, with the biased variance plus 1e-5, so correlations are those of equation 1 but for that
    1e-5. The loss is a sum over d (diagonal) and d (d - 1) numbers, not a mean.

    Args:
      z: projections [b, 2, d], b >= 2; computed in float32 at least.
      lambda_: weight of the off-diagonal sum. The paper gives 0.005, its code 0.0051.

    Returns:
      The scalar loss, and metrics without gradient: "on_diagonal" and "off_diagonal", the two sums
      before weighting. All rows equal, the first is d.

    Raises:
      ValueError: wrong shape or b < 2.

    Source: Zbontar et al. (arXiv 2103.03230), equations 1 and 2.
    """
    z = _checked(z)
    centred = z - z.mean(0, keepdims=True)
    variance = jnp.square(centred).mean(0, keepdims=True)
    normal = centred * lax.rsqrt(variance + BARLOW_EPSILON)
    correlation = _products("bi,bj->ij", normal[:, 0], normal[:, 1]) / len(z)
    on_diagonal = jnp.square(1 - jnp.diagonal(correlation)).sum()
    off_diagonal = _off_diagonal(correlation)
    metrics = {"on_diagonal": on_diagonal, "off_diagonal": off_diagonal}
    return on_diagonal + lambda_ * off_diagonal, lax.stop_gradient(metrics)


def vicreg(
    z: jax.Array, *, sim: float = 25.0, std: float = 25.0, cov: float = 1.0
) -> tuple[jax.Array, Metrics]:
    """VICReg: sim * invariance + std * variance + cov * covariance of two views.

    invariance: squared difference of the views, mean over examples and dimensions.
    variance: hinge of 1 - sqrt(variance + 1e-4), mean over dimensions and views.
    covariance: sum of squared off-diagonal covariances / d, sum over views.
    Variances and covariances are unbiased: they divide by b - 1.

    The terms are those of the authors' code, for which 25, 25, 1 are good. Equation 6 as printed
    has d times this invariance (equation 5 adds up dimensions) and twice this variance (views are
    added up, not averaged).

    Args:
      z: projections [b, 2, d], b >= 2, not normalised; computed in float32 at least.
      sim, std, cov: weights, the paper's lambda, mu and nu.

    Returns:
      The scalar loss, and metrics without gradient: "invariance", "variance", "covariance", before
      weighting. A collapse shows as a variance of 0.99, the largest there is.

    Raises:
      ValueError: wrong shape or b < 2.

    Source: Bardes et al. (arXiv 2105.04906), equations 1 to 6, and their code.
    """
    z = _checked(z)
    invariance = jnp.square(z[:, 0] - z[:, 1]).mean()
    centred = z - z.mean(0, keepdims=True)
    deviation = jnp.sqrt(jnp.square(centred).sum(0) / (len(z) - 1) + VICREG_EPSILON)
    variance = jax.nn.relu(1 - deviation).mean()
    matrices = _products("bvi,bvj->vij", centred, centred) / (len(z) - 1)
    covariance = _off_diagonal(matrices) / z.shape[-1]
    metrics = {"invariance": invariance, "variance": variance, "covariance": covariance}
    loss = sim * invariance + std * variance + cov * covariance
    return loss, lax.stop_gradient(metrics)


def _checked(z: jax.Array) -> jax.Array:
    if z.ndim != 3 or z.shape[0] < 2 or z.shape[1] != 2:
        raise ValueError(f"z of shape {z.shape}: want [b, 2, d] with b of at least 2")
    return z.astype(wide(z.dtype))


def _products(subscripts: str, a: jax.Array, b: jax.Array) -> jax.Array:
    # Accelerators would round float32 to 8 or 11 bits by default.
    return jnp.einsum(subscripts, a, b, precision=lax.Precision.HIGHEST)


def _off_diagonal(matrices: jax.Array) -> jax.Array:
    """Sum of the squares of [..., d, d] off the diagonal. Masked: the diagonal is far larger."""
    diagonal = jnp.eye(matrices.shape[-1], dtype=bool)
    diagonal = diagonal.reshape((1,) * (matrices.ndim - 2) + diagonal.shape)
    return jnp.square(jnp.where(diagonal, 0, matrices)).sum()
