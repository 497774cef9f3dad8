"""Mixture of Gaussians with diagonal covariances, fitted to a stream of batches."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

EXACT = jax.lax.Precision.HIGHEST  # accelerators round float32 to 8 or 11 bits by default


class Mixture(NamedTuple):
    """Sufficient statistics: running means over examples.

    Let r_k be the responsibility of component k for an example x.
    """

    mass: jax.Array
    """Running mean of r_k: [k], sums to 1; zeros before the first batch."""

    first: jax.Array
    """Running mean of r_k x: [k, d]."""

    second: jax.Array
    """Running mean of r_k x²: [k, d]."""


class Gaussians(NamedTuple):
    """Parameters of the components."""

    log_weight: jax.Array  # [k]
    mean: jax.Array  # [k, d]
    variance: jax.Array  # [k, d]


def empty(components: int, dim: int) -> Mixture:
    """Returns an empty mixture. The first `update` initialises its components."""
    return Mixture(jnp.zeros(components), *jnp.zeros((2, components, dim)))


def gaussians(mixture: Mixture, floor: float) -> Gaussians:
    """Maximum-likelihood parameters for the statistics, with variances of at least `floor`."""
    mean = mixture.first / mixture.mass[:, None]
    variance = mixture.second / mixture.mass[:, None] - jnp.square(mean)
    return Gaussians(jnp.log(mixture.mass), mean, jnp.maximum(variance, floor))


def log_joint(components: Gaussians, x: jax.Array) -> jax.Array:
    """log p(component, x) of examples whose v rows are independent, given their common component.

    Args:
      components: k components.
      x: [n, v, d], v rows of each example.

    Returns:
      [n, k]. Its `logsumexp` over k is the log density; its softmax over k gives the
      responsibilities.
    """
    log_weight, mean, variance = components
    x = x - (centre := mean.mean(0))[None, None]  # avoids cancellation far from the origin
    mean = mean - centre[None]
    precision = 1 / variance
    squares = jnp.matmul(jnp.square(x).sum(1), precision.T, precision=EXACT)
    products = jnp.matmul(x.sum(1), (mean * precision).T, precision=EXACT)
    component_terms = (jnp.square(mean) * precision + jnp.log(2 * jnp.pi * variance)).sum(-1)
    return log_weight[None] + products - (squares + x.shape[1] * component_terms[None]) / 2


def update(
    mixture: Mixture,
    x: jax.Array,
    rate: jax.Array,
    key: jax.Array,
    *,
    floor: float,
    min_share: float,
) -> tuple[Mixture, jax.Array]:
    """Takes one step of on-line EM on a batch; without gradient.

    Components with at most `min_share` of an equal share are re-seeded (at first, all of them).
    Each starts at a different example drawn from the batch, with the variance of the batch and an
    equal share.

    Args:
      mixture: statistics before the step.
      x: [n, v, d], n >= k examples; the v rows of an example come from one component.
      rate: step size of the statistics towards those of the batch, in (0, 1].
      key: draws the examples at which components are re-seeded.
      floor: smallest variance.
      min_share: fraction of an equal share, 1 / k.

    Returns:
      (new mixture, responsibilities [n, k] under the mixture before the step, after re-seeding).

    Source: Cappé and Moulines (arXiv 0712.4273), section 2.3: the statistics are averaged, not the
    parameters. The re-seeding is our own.
    """
    x = jax.lax.stop_gradient(x)
    mixture = _reseed(mixture, x, key, min_share)
    responsibilities = jax.nn.softmax(log_joint(gaussians(mixture, floor), x))
    share = responsibilities.T / len(x)
    batch = Mixture(
        share.sum(1),
        jnp.matmul(share, x.mean(1), precision=EXACT),
        jnp.matmul(share, jnp.square(x).mean(1), precision=EXACT),
    )
    return jax.tree.map(lambda old, new: old + rate * (new - old), mixture, batch), responsibilities


def _reseed(mixture: Mixture, x: jax.Array, key: jax.Array, min_share: float) -> Mixture:
    k = len(mixture.mass)
    dead = mixture.mass <= min_share / k
    seeds = x[jax.random.choice(key, len(x), (k,), replace=False), 0]
    fresh = Mixture(jnp.ones(k), seeds, jnp.square(seeds) + x.var((0, 1))[None])
    fresh = jax.tree.map(lambda s: s / k, fresh)
    chosen = jax.tree.map(
        lambda new, old: jnp.where(dead.reshape(-1, *[1] * (old.ndim - 1)), new, old),
        fresh,
        mixture,
    )
    return jax.tree.map(lambda s: s / chosen.mass.sum(), chosen)


def sample(components: Gaussians, key: jax.Array, which: jax.Array) -> jax.Array:
    """Draws a row [..., d] from each of the components `which`, int [...]."""
    noise = jax.random.normal(key, (*which.shape, components.mean.shape[-1]))
    return components.mean[which] + jnp.sqrt(components.variance[which]) * noise


def draw(components: Gaussians, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Draws rows [*shape, d] from the mixture."""
    keys = jax.random.split(key)
    which = jax.random.categorical(keys[0], components.log_weight, shape=shape)
    return sample(components, keys[1], which)
