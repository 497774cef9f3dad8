"""Values as classes: bins with soft targets, weights of rare bins, and the mean of a prediction."""

import jax
import jax.numpy as jnp
import numpy as np


def squared_distances(values: jax.Array, centres: np.ndarray) -> jax.Array:
    """Returns the squared distances [..., q] of values [..., d] to the centres [q, d] of bins."""
    # Differences, not |x|² - 2xc + |c|², which would lose digits.
    distance = jnp.zeros((*values.shape[:-1], len(centres)), values.dtype)
    for d in range(centres.shape[1]):
        centre = jnp.asarray(centres[:, d], values.dtype)
        centre = centre.reshape((1,) * (values.ndim - 1) + (len(centres),))
        distance += jnp.square(values[..., d : d + 1] - centre)
    return distance


def soft_targets(distances: jax.Array, *, neighbours: int, sigma: float) -> jax.Array:
    """Returns a distribution over the nearest bins, with Gaussian weights.

    Args:
      distances: squared distances [..., q] of a value to all bins.
      neighbours: number of bins with a weight. Of equally near bins, the first ones are taken.
      sigma: standard deviation of the Gaussian, in the unit of the values.

    Returns:
      [..., q], sums to 1 over the last axis.

    Source: Zhang, Isola and Efros (arXiv 1603.08511), section 2.1.
    """

    def remove_nearest(_: int, remaining: jax.Array) -> jax.Array:
        nearest = jax.nn.one_hot(remaining.argmin(-1), remaining.shape[-1], dtype=bool)
        return jnp.where(nearest, jnp.inf, remaining)

    # Not `lax.top_k`, for which XLA gathers all rows on every device.
    remaining = jax.lax.fori_loop(0, neighbours, remove_nearest, distances)
    # Weights are relative to the nearest bin's, which a distant value would round to 0.
    weights = jnp.exp((distances.min(-1, keepdims=True) - distances) / (2 * sigma**2))
    weights = jnp.where(jnp.isinf(remaining), weights, 0)
    return weights / weights.sum(-1, keepdims=True)


def bin_shares(nearest: jax.Array, bins: int, dtype: jnp.dtype) -> jax.Array:
    """Returns the share of each example's places in each bin, [n, bins].

    Args:
      nearest: int [n, ...], number of the bin at each place.
      bins: number of bins.
      dtype: dtype of the result.
    """
    places = nearest.reshape(len(nearest), -1)
    return jax.nn.one_hot(places, bins, dtype=dtype).mean(1)


def rebalancing_weights(
    counts: jax.Array, centres: np.ndarray, *, sigma: float, uniform: float
) -> jax.Array:
    """Returns the weight of each bin, so that rare bins count more.

    The frequencies are smoothed by a Gaussian and mixed with the uniform distribution. The weight
    is inversely proportional to the mixture. The expected weight under the smoothed frequencies is
    1.

    Args:
      counts: [q], how often each bin occurs; not all 0.
      centres: [q, d], centres of the bins.
      sigma: standard deviation of the Gaussian, in the unit of the centres.
      uniform: share of the uniform distribution in the mixture, in [0, 1]. With 1, all weights are
        1.

    Source: Zhang, Isola and Efros (arXiv 1603.08511), section 2.2, equation 4.
    """
    gauss = np.exp(-np.square(centres[:, None] - centres[None]).sum(-1) / (2 * sigma**2))
    kernel = jnp.asarray(gauss / gauss.sum(1, keepdims=True), counts.dtype)
    smooth = jnp.matmul(counts / counts.sum(), kernel, precision=jax.lax.Precision.HIGHEST)
    weights = 1 / ((1 - uniform) * smooth + uniform / len(centres))
    return weights / (smooth * weights).sum()


def annealed_mean(logits: jax.Array, centres: np.ndarray, *, temperature: float) -> jax.Array:
    """Returns the mean [..., d] of a predicted distribution over bins after sharpening it.

    Args:
      logits: [..., q].
      centres: [q, d], centres of the bins.
      temperature: at 1, the result is the mean; towards 0, the most likely bin.

    Source: Zhang, Isola and Efros (arXiv 1603.08511), section 2.3, equation 5.
    """
    probabilities = jax.nn.softmax(logits / temperature, axis=-1)
    values = jnp.asarray(centres, probabilities.dtype)
    return jnp.matmul(probabilities, values, precision=jax.lax.Precision.HIGHEST)
