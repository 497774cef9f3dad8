"""Prototypes of SwAV and DINO: unit vectors that embeddings are compared with."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_jax.losses.softmax import normalise

Prototypes = dict[str, jax.Array]
LECUN_NORMAL = nn.initializers.lecun_normal()


def init_prototypes(
    key: jax.Array,
    dim: int,
    count: int,
    init: nn.initializers.Initializer = LECUN_NORMAL,
) -> Prototypes:
    """Draws initial prototypes for `scores`: {"kernel": float32 [dim, count]}.

    The norm of a column does not change its scores, but an update turns a longer column less. By
    default, columns have a mean squared norm of 1, as in SwAV's code.
    """
    return {"kernel": init(key, (dim, count), jnp.float32)}


def scores(z: jax.Array, prototypes: Prototypes) -> jax.Array:
    """Cosine similarities between embeddings and prototypes.

    SwAV's prototypes (arXiv 2006.09882, section 3.1) and DINO's weight-normalised last layer
    (arXiv 2104.14294, section 3.1). Only the direction of a kernel column matters.

    Args:
      z: embeddings [..., dim], any length.
      prototypes: see `init_prototypes`.

    Returns:
      [..., count] in float32 or wider.
    """
    # By default, accelerators would round to bfloat16 here, and a temperature of 0.05 amplifies it.
    kernel = normalise(prototypes["kernel"].T).T
    return jnp.matmul(normalise(z), kernel, precision=jax.lax.Precision.HIGHEST)


def frozen_until(end: float, step: jax.Array, prototypes: Prototypes) -> Prototypes:
    """Returns the prototypes, without gradient in the steps before `end`."""
    return jax.tree.map(lambda x: jnp.where(step < end, jax.lax.stop_gradient(x), x), prototypes)
