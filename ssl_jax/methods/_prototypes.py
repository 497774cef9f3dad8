"""Prototypes: unit vectors that embeddings are compared with, in SwAV and DINO."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_jax.losses.softmax import normalise

Prototypes = dict[str, jax.Array]


def init_prototypes(key: jax.Array, dim: int, count: int) -> Prototypes:
    """{"kernel": [dim, count]} float32 for `scores`."""
    return {"kernel": nn.initializers.lecun_normal()(key, (dim, count), jnp.float32)}


def scores(z: jax.Array, prototypes: Prototypes) -> jax.Array:
    """Cosines of embeddings [..., dim] and prototypes: [..., count], in float32 at least.

    SwAV's prototypes (arXiv 2006.09882, section 3.1) and DINO's weight-normalised last layer
    (arXiv 2104.14294, section 3.1). A column of the kernel counts by its direction alone.
    """
    # Accelerators would round float32 to bfloat16 here, and a temperature of 0.05 enlarges it.
    kernel = normalise(prototypes["kernel"].T).T
    return jnp.matmul(normalise(z), kernel, precision=jax.lax.Precision.HIGHEST)


def frozen_until(end: float, step: jax.Array, prototypes: Prototypes) -> Prototypes:
    """The prototypes, without gradient in the steps before `end`."""
    return jax.tree.map(lambda x: jnp.where(step < end, jax.lax.stop_gradient(x), x), prototypes)
