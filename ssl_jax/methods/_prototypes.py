"""Prototypes of SwAV and DINO: unit vectors that embeddings are compared with."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_jax.data import pipeline
from ssl_jax.losses.softmax import normalise
from ssl_jax.methods import Run

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


def freeze_steps(epochs: float, run: Run) -> int:
    """Returns how many steps of the run start within its first `epochs` epochs."""
    steps = pipeline.exact_steps(run.num_examples, run.batch_size, epochs)
    return min(math.ceil(steps), run.total_steps)


def frozen_until(end: int, step: jax.Array, prototypes: Prototypes) -> Prototypes:
    """Returns the prototypes, without gradient in the steps before `end`."""
    return jax.tree.map(lambda x: jnp.where(step < end, jax.lax.stop_gradient(x), x), prototypes)
