"""Metrics of methods that reconstruct images."""

import jax
import jax.numpy as jnp


def reconstruction_metrics(error: jax.Array, images: jax.Array) -> dict[str, jax.Array]:
    """Returns the mean error of reconstructions, and that of the batch's mean image.

    Args:
      error: mean squared error per pixel and channel of each image, [b].
      images: originals [b, h, w, c]. Only their mean moves between devices.

    Returns:
      "reconstruction_error", and "reconstruction_chance", the error of the best guess that does not
      depend on the image. Neither has a gradient.
    """
    error, images = jax.lax.stop_gradient((error, images))
    deviation = images - images.mean(0, keepdims=True)
    return {
        "reconstruction_error": error.mean(),
        "reconstruction_chance": jnp.square(deviation).mean(),
    }


def mean_squared_error(images: jax.Array, reconstructions: jax.Array) -> jax.Array:
    """Returns the mean over pixels and channels of squared differences, [n], without gradient."""
    images, reconstructions = jax.lax.stop_gradient((images, reconstructions))
    return jnp.square(images - reconstructions).mean((1, 2, 3))
