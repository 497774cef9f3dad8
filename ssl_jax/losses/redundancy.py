"""Losses on the statistics of embedding dimensions over the batch: Barlow Twins and VICReg.

Memory holds matrices of size d x d, whatever the batch size. With rows on several devices, each
matrix is a sum over devices.
"""

import jax
import jax.numpy as jnp
from jax import lax

from ssl_jax.losses.softmax import Metrics
from ssl_jax.losses.tiles import accumulation_dtype

BARLOW_EPSILON = 1e-5  # as in the authors' BatchNorm; keeps a constant dimension finite
VICREG_EPSILON = 1e-4


def barlow_twins(z: jax.Array, *, lambda_: float = 0.005) -> tuple[jax.Array, Metrics]:
    """Barlow Twins loss: pulls the cross-correlation matrix of two views towards the identity.

    Each dimension of each view is normalised over the batch, as by a BatchNorm without scale and
    bias. The denominator is the biased variance plus 1e-5, so correlations equal those of equation
    1 except for this epsilon. The loss is a sum over d diagonal and d (d - 1) off-diagonal terms,
    not a mean.

    Args:
      z: projections [b, 2, d], b >= 2; computed in float32 or wider.
      lambda_: weight of the off-diagonal sum. The paper uses 0.005, its code 0.0051.

    Returns:
      (loss, metrics). The loss is a scalar. Metrics, without gradient: "on_diagonal" and
      "off_diagonal", the two sums before weighting. If all rows are equal, "on_diagonal" is d.

    Raises:
      ValueError: if z does not have shape [b, 2, d] with b >= 2.

    Source: Zbontar et al. (arXiv 2103.03230), equations 1 and 2.
    """
    z = _validated(z)
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
    """VICReg loss: sim * invariance + std * variance + cov * covariance of two views.

    The invariance is the squared difference of the two views, averaged over examples and
    dimensions. The variance is the hinge max(0, 1 - sqrt(variance + 1e-4)), averaged over
    dimensions and views. The covariance is the sum of squared off-diagonal covariances / d, summed
    over views. Variances and covariances are unbiased: they divide by b - 1.

    The terms follow the authors' code, for which the default weights 25, 25, 1 are tuned. Equation
    6 as printed has d times this invariance, because equation 5 sums over dimensions. It has twice
    this variance, because it sums over views.

    Args:
      z: projections [b, 2, d], b >= 2, not normalised; computed in float32 or wider.
      sim: weight of the invariance, lambda in the paper.
      std: weight of the variance, mu in the paper.
      cov: weight of the covariance, nu in the paper.

    Returns:
      (loss, metrics). The loss is a scalar. Metrics, without gradient: "invariance", "variance" and
      "covariance", the terms before weighting. In a collapse "variance" is 0.99, its maximum.

    Raises:
      ValueError: if z does not have shape [b, 2, d] with b >= 2.

    Source: Bardes et al. (arXiv 2105.04906), equations 1 to 6, and their code.
    """
    z = _validated(z)
    invariance = jnp.square(z[:, 0] - z[:, 1]).mean()
    centred = z - z.mean(0, keepdims=True)
    deviation = jnp.sqrt(jnp.square(centred).sum(0) / (len(z) - 1) + VICREG_EPSILON)
    variance = jax.nn.relu(1 - deviation).mean()
    matrices = _products("bvi,bvj->vij", centred, centred) / (len(z) - 1)
    covariance = _off_diagonal(matrices) / z.shape[-1]
    metrics = {"invariance": invariance, "variance": variance, "covariance": covariance}
    loss = sim * invariance + std * variance + cov * covariance
    return loss, lax.stop_gradient(metrics)


def _validated(z: jax.Array) -> jax.Array:
    if z.ndim != 3 or z.shape[0] < 2 or z.shape[1] != 2:
        raise ValueError(f"z has shape {z.shape}; it must be [b, 2, d] with b at least 2")
    return z.astype(accumulation_dtype(z.dtype))


def _products(subscripts: str, a: jax.Array, b: jax.Array) -> jax.Array:
    # By default, accelerators would round float32 products to 8 or 11 bits.
    return jnp.einsum(subscripts, a, b, precision=lax.Precision.HIGHEST)


def _off_diagonal(matrices: jax.Array) -> jax.Array:
    """Sum of the squared off-diagonal elements of [..., d, d].

    The diagonal is masked instead of subtracted: it is far larger than the rest.
    """
    diagonal = jnp.eye(matrices.shape[-1], dtype=bool)
    diagonal = diagonal.reshape((1,) * (matrices.ndim - 2) + diagonal.shape)
    return jnp.square(jnp.where(diagonal, 0, matrices)).sum()
