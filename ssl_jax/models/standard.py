"""Standardised images: what encoders that were trained on such images do first."""

import jax
import jax.numpy as jnp

MEAN = (0.0, 0.0, 0.0)
STD = (1.0, 1.0, 1.0)


def standardise(images: jax.Array, mean: tuple[float, ...], std: tuple[float, ...]) -> jax.Array:
    """Images [n, h, w, 3] in [0, 1], less `mean`, over `std`; untouched by 0 and 1.

    Raises:
      ValueError: not three numbers each, or a deviation that is not positive.
    """
    if len(mean) != 3 or len(std) != 3 or not all(deviation > 0 for deviation in std):
        raise ValueError(f"mean {mean}, std {std}: three numbers each, std more than 0")
    if tuple(mean) == MEAN and tuple(std) == STD:
        return images
    dtype = jnp.promote_types(images.dtype, jnp.float32)
    shift, scale = (jnp.asarray(v, dtype).reshape(1, 1, 1, 3) for v in (mean, std))
    return (images.astype(dtype) - shift) / scale
