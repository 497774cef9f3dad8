"""Losses of autoencoders: reconstruction per component, emphasis on corrupted ones, divergence."""

import jax
import jax.numpy as jnp

from ssl_jax.losses.tiles import accumulation_dtype

RECONSTRUCTIONS = ("squared_error", "cross_entropy")


def cross_entropy(target: jax.Array, logits: jax.Array) -> jax.Array:
    """Cross-entropy of Bernoulli units: -x log p - (1 - x) log(1 - p), where logits = log(p/(1-p)).

    It is the negative log-likelihood if x is binary. For x between 0 and 1, it is smallest at
    p = x, where it is the entropy of x.

    Args:
      target: x in [0, 1], any shape.
      logits: of the same shape.

    Returns:
      Values of the same shape in nats, in float32 or wider.

    Source: Vincent et al. (JMLR 11, 2010), section 2.2.
    """
    target, logits = (x.astype(accumulation_dtype(x.dtype)) for x in (target, logits))
    return jax.nn.softplus(logits) - target * logits


def emphasised(
    error: jax.Array, corrupted: jax.Array, corrupted_weight: float, clean_weight: float
) -> jax.Array:
    """Sums errors of components; those of corrupted components have a weight of their own.

    Args:
      error: error of each component, [n, ...].
      corrupted: bool of the same shape, True where the noise replaced the component.
      corrupted_weight: alpha of the paper, for corrupted components.
      clean_weight: beta, for all others.

    Returns:
      Weighted sum of each row, [n].

    Source: Vincent et al. (JMLR 11, 2010), section 4.3.
    """
    weighted = error * jnp.where(corrupted, corrupted_weight, clean_weight).astype(error.dtype)
    return weighted.sum(tuple(range(1, error.ndim)))


def kl_to_standard_normal(mean: jax.Array, log_variance: jax.Array) -> jax.Array:
    """Kullback-Leibler divergence of normal distributions from the standard normal distribution.

    Args:
      mean, log_variance: of independent dimensions, any equal shapes.

    Returns:
      (mean² + variance - 1 - log variance) / 2 of the same shape, in nats, in float32 or wider.

    Source: Kingma and Welling (arXiv 1312.6114), appendix B.
    """
    mean, log_variance = (x.astype(accumulation_dtype(x.dtype)) for x in (mean, log_variance))
    return (jnp.square(mean) + jnp.expm1(log_variance) - log_variance) / 2


def free_bits(divergence: jax.Array, free: float, group: int = 1) -> jax.Array:
    """Sums the mean divergences of groups of dimensions, none of them less than `free`.

    A group below the limit has no gradient, so that the posterior may use it at no cost.

    Args:
      divergence: [b, d] in nats, of the global batch.
      free: smallest value of a group, in nats; 0 changes nothing.
      group: consecutive dimensions per group; divides d.

    Returns:
      Scalar, in nats.

    Source: Kingma et al. (arXiv 1606.04934), section 4 and appendix C.8.
    """
    means = divergence.mean(0).reshape(-1, group).sum(1)
    return jnp.maximum(means, free).sum()
