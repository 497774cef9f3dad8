"""Standardisation of images, for encoders that were trained on standardised images."""

import jax
import jax.numpy as jnp

MEAN = (0.0, 0.0, 0.0)
STD = (1.0, 1.0, 1.0)


def standardise(images: jax.Array, mean: tuple[float, ...], std: tuple[float, ...]) -> jax.Array:
    """Subtracts `mean` from images [n, h, w, 3] in [0, 1] and divides by `std`.

    Mean 0 and std 1 return the images unchanged.

    Raises:
      ValueError: if mean or std does not have three numbers, or a standard deviation is not
        positive.
    """
    if len(mean) != 3 or len(std) != 3 or not all(deviation > 0 for deviation in std):
        raise ValueError(
            f"mean and std must have three numbers each, and std must be positive; "
            f"got mean {mean} and std {std}"
        )
    if tuple(mean) == MEAN and tuple(std) == STD:
        return images
    dtype = jnp.promote_types(images.dtype, jnp.float32)
    shift, scale = (jnp.asarray(v, dtype).reshape(1, 1, 1, 3) for v in (mean, std))
    return (images.astype(dtype) - shift) / scale
