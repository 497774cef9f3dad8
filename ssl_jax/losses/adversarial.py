"""The game of a discriminator, which tells true from made, and of who makes what it sees."""

import jax
import jax.numpy as jnp

from ssl_jax.losses.softmax import Metrics
from ssl_jax.losses.tiles import wide


def discriminate(true: jax.Array, made: jax.Array) -> tuple[jax.Array, Metrics]:
    """The discriminator's loss: -log D(true) - log(1 - D(made)), each its mean, over 2.

    Args:
      true, made: logits of D, of any shape.

    Returns:
      The scalar loss in nats, log 2 at a guess, and metrics without gradient:
      "discriminator_accuracy", the mean over both kinds of the share that is told right.

    Source: Goodfellow et al. (arXiv 1406.2661), equation 1.
    """
    true, made = (x.astype(wide(x.dtype)) for x in (true, made))
    loss = (jax.nn.softplus(-true).mean() + jax.nn.softplus(made).mean()) / 2
    right = ((true > 0).mean(dtype=true.dtype) + (made <= 0).mean(dtype=made.dtype)) / 2
    return loss, {"discriminator_accuracy": right}


def fool(made: jax.Array) -> jax.Array:
    """The maker's loss: mean -log D(made) of logits, which does not saturate where D is right.

    Source: Goodfellow et al. (arXiv 1406.2661), section 3.
    """
    return jnp.mean(jax.nn.softplus(-made.astype(wide(made.dtype))))
