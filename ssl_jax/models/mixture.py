"""Mixture of Gaussians with diagonal covariances, fitted to a stream of batches."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

EXACT = jax.lax.Precision.HIGHEST  # accelerators would round float32 to 8 or 11 bits by default


class Mixture(NamedTuple):
    """Sufficient statistics: running means over examples, r_k being what component k has of one."""

    mass: jax.Array
    """Of r_k: [k], sums to 1; zeros before the first batch."""

    first: jax.Array
    """Of r_k x: [k, d]."""

    second: jax.Array
    """Of r_k x²: [k, d]."""


class Gaussians(NamedTuple):
    """What the statistics say: the components' log weights [k], means and variances [k, d]."""

    log_weight: jax.Array
    mean: jax.Array
    variance: jax.Array


def empty(components: int, dim: int) -> Mixture:
    """The mixture before the first batch, from which `update` seeds all components."""
    return Mixture(jnp.zeros(components), *jnp.zeros((2, components, dim)))


def gaussians(mixture: Mixture, floor: float) -> Gaussians:
    """The parameters at which the likelihood is greatest, variances at least `floor`."""
    mean = mixture.first / mixture.mass[:, None]
    variance = mixture.second / mixture.mass[:, None] - jnp.square(mean)
    return Gaussians(jnp.log(mixture.mass), mean, jnp.maximum(variance, floor))


def log_joint(components: Gaussians, x: jax.Array) -> jax.Array:
    """log p(component, x) of examples whose rows are independent, given the component they share.

    Args:
      x: [n, v, d], v rows of each example.

    Returns:
      [n, k]; its `logsumexp` over k is the log density, its softmax the responsibilities.
    """
    log_weight, mean, variance = components
    x = x - (centre := mean.mean(0))[None, None]  # squares far from the origin would cancel
    mean = mean - centre[None]
    precision = 1 / variance
    squares = jnp.matmul(jnp.square(x).sum(1), precision.T, precision=EXACT)
    products = jnp.matmul(x.sum(1), (mean * precision).T, precision=EXACT)
    own = (jnp.square(mean) * precision + jnp.log(2 * jnp.pi * variance)).sum(-1)
    return log_weight[None] + products - (squares + x.shape[1] * own[None]) / 2


def update(
    mixture: Mixture,
    x: jax.Array,
    rate: jax.Array,
    key: jax.Array,
    *,
    floor: float,
    min_share: float,
) -> tuple[Mixture, jax.Array]:
    """One step of on-line EM by a batch; without gradient.

    Components that have at most `min_share` of an equal share, at first all, begin anew: at
    different examples drawn from the batch, with the batch's variance and an equal share.

    Args:
      x: [n, v, d], n >= k examples, the v rows of each from one component.
      rate: by how much the statistics move towards the batch's, in (0, 1].
      floor: of the variances.

    Returns:
      (the new mixture; responsibilities [n, k] by the one that the step began with).

    Source: Cappé and Moulines (arXiv 0712.4273), section 2.3: the statistics are averaged, not the
    parameters. Beginning anew is ours.
    """
    x = jax.lax.stop_gradient(x)
    mixture = _reseed(mixture, x, key, min_share)
    found = jax.nn.softmax(log_joint(gaussians(mixture, floor), x))
    share = found.T / len(x)
    batch = Mixture(
        share.sum(1),
        jnp.matmul(share, x.mean(1), precision=EXACT),
        jnp.matmul(share, jnp.square(x).mean(1), precision=EXACT),
    )
    return jax.tree.map(lambda old, new: old + rate * (new - old), mixture, batch), found


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
    """A row [..., d] from each of the components `which`, integers [...]."""
    noise = jax.random.normal(key, (*which.shape, components.mean.shape[-1]))
    return components.mean[which] + jnp.sqrt(components.variance[which]) * noise


def draw(components: Gaussians, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Rows [*shape, d] of the mixture."""
    keys = jax.random.split(key)
    which = jax.random.categorical(keys[0], components.log_weight, shape=shape)
    return sample(components, keys[1], which)
