"""Losses of the game between a discriminator and a generator (GAN)."""

import jax
import jax.numpy as jnp

from ssl_jax.losses.softmax import Metrics
from ssl_jax.losses.tiles import accumulation_dtype


def discriminate(real: jax.Array, generated: jax.Array) -> tuple[jax.Array, Metrics]:
    """Discriminator loss: half of mean(-log D(real)) + mean(-log(1 - D(generated))).

    Args:
      real: logits of the discriminator D on real inputs, any shape.
      generated: logits of D on generated inputs, any shape.

    Returns:
      (loss, metrics). The loss is a scalar in nats, in float32 or wider; it is log 2 when D is at
      chance. Metrics, without gradient: "discriminator_accuracy", the mean of the accuracies on
      real and on generated inputs.

    Source: Goodfellow et al. (arXiv 1406.2661), equation 1.
    """
    real, generated = (x.astype(accumulation_dtype(x.dtype)) for x in (real, generated))
    loss = (jax.nn.softplus(-real).mean() + jax.nn.softplus(generated).mean()) / 2
    accuracy = (
        (real > 0).mean(dtype=real.dtype) + (generated <= 0).mean(dtype=generated.dtype)
    ) / 2
    return loss, {"discriminator_accuracy": accuracy}


def fool(generated: jax.Array) -> jax.Array:
    """Generator loss: mean of -log D(generated), which does not saturate when D is confident.

    Args:
      generated: logits of the discriminator D on generated inputs, any shape.

    Returns:
      Scalar loss in nats, in float32 or wider.

    Source: Goodfellow et al. (arXiv 1406.2661), section 3.
    """
    return jnp.mean(jax.nn.softplus(-generated.astype(accumulation_dtype(generated.dtype))))
