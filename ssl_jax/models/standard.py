"""Standardisation of images, for encoders that were trained on standardised images."""

import jax
import jax.numpy as jnp

MEAN = (0.0, 0.0, 0.0)  # neutral: standardisation changes nothing
STD = (1.0, 1.0, 1.0)


def standardise(images: jax.Array, mean: tuple[float, ...], std: tuple[float, ...]) -> jax.Array:
    """Subtracts `mean` from images [n, h, w, c] in [0, 1] and divides by `std`.

    Mean 0 and std 1, of any length, return the images unchanged.

    Args:
      images: floating point.
      mean, std: one number per channel.

    Raises:
      ValueError: if mean or std does not have one number per channel, or a standard deviation is
        not positive.
    """
    if is_neutral(mean, std):
        return images
    channels = images.shape[-1]
    if {len(mean), len(std)} != {channels} or not all(deviation > 0 for deviation in std):
        raise ValueError(
            f"mean and std must have one number per channel, and std must be positive; got "
            f"mean {mean} and std {std} for {channels} channels"
        )
    dtype = jnp.promote_types(images.dtype, jnp.float32)
    shift, scale = (jnp.asarray(v, dtype).reshape(1, 1, 1, channels) for v in (mean, std))
    return (images.astype(dtype) - shift) / scale


def unstandardise(images: jax.Array, mean: tuple[float, ...], std: tuple[float, ...]) -> jax.Array:
    """Inverts `standardise`, whose checks the mean and std have passed."""
    if is_neutral(mean, std):
        return images
    shift, scale = (jnp.asarray(v, images.dtype).reshape(1, 1, 1, -1) for v in (mean, std))
    return images * scale + shift


def is_neutral(mean: tuple[float, ...], std: tuple[float, ...]) -> bool:
    """Tells whether standardisation changes nothing."""
    return not any(mean) and all(deviation == 1 for deviation in std)
