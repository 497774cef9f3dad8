"""Conversion between sRGB and CIE Lab, and the colour channels that an encoder sees.

Lab has a lightness L in [0, 100] and two colour channels, a (green to red) and b (blue to yellow),
which are 0 for grey. All functions keep float64, and compute in float32 at least.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ssl_jax.models.options import COLORS
from ssl_jax.models.standard import is_neutral, standardise

# IEC 61966-2-1: linear sRGB to XYZ, for the white point D65 of a 2 degree observer.
XYZ_FROM_RGB = np.array(
    [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]]
)
WHITE = np.array([0.95047, 1.0, 1.08883])
SRGB_KNEE, LINEAR_KNEE = 0.04045, 0.0031308
LAB_KNEE = 0.008856  # of XYZ, relative to white; the cube root is replaced by a line below it
# Lab channels are centred and scaled for the encoder as in richzhang/colorization, colorizers/.
CENTRE = np.array([50.0, 0.0, 0.0])
SCALE = np.array([100.0, 110.0, 110.0])


def to_lab(images: jax.Array) -> jax.Array:
    """Converts sRGB images [..., 3] in [0, 1] to Lab [..., 3].

    The derivative is finite everywhere, also for values somewhat outside [0, 1].

    Source: IEC 61966-2-1 and CIE 15; equal to scikit-image's `rgb2lab` up to rounding.
    """
    x = images.astype(jnp.promote_types(images.dtype, jnp.float32))
    # The unused branch of `where` must have a finite derivative, too.
    power = jnp.power((jnp.maximum(x, SRGB_KNEE) + 0.055) / 1.055, 2.4)
    linear = jnp.where(x > SRGB_KNEE, power, x / 12.92)
    xyz = _times(linear, XYZ_FROM_RGB.T / WHITE)
    root = jnp.cbrt(jnp.maximum(xyz, LAB_KNEE))
    f = jnp.where(xyz > LAB_KNEE, root, 7.787 * xyz + 16 / 116)
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    return jnp.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def to_rgb(lab: jax.Array) -> jax.Array:
    """Converts Lab [..., 3] to sRGB images [..., 3] in [0, 1]; clips colours outside the gamut."""
    lightness, a, b = lab[..., 0], lab[..., 1], lab[..., 2]
    y = (lightness + 16) / 116
    f = jnp.stack([y + a / 500, y, jnp.maximum(y - b / 200, 0)], axis=-1)
    xyz = jnp.where(f > LAB_KNEE ** (1 / 3), f**3, (f - 16 / 116) / 7.787)
    linear = _times(xyz, np.linalg.inv(XYZ_FROM_RGB.T / WHITE))
    power = 1.055 * jnp.power(jnp.maximum(linear, LINEAR_KNEE), 1 / 2.4) - 0.055
    return jnp.where(linear > LINEAR_KNEE, power, 12.92 * linear).clip(0, 1)


def seen_channels(images: jax.Array, colors: str) -> jax.Array:
    """Returns the channels that an encoder with the option `colors` sees.

    Args:
      images: [..., c] in [0, 1].
      colors: "rgb" returns the images unchanged, whatever their channels. "lightness" returns
        (L - 50) / 100, [..., 1]. "lab" also returns a / 110 and b / 110, [..., 3].

    Raises:
      ValueError: if `colors` is unknown, or Lab is asked of images that are not RGB.
    """
    if colors not in COLORS:
        raise ValueError(f"colors must be one of {', '.join(COLORS)}; got {colors!r}")
    if colors == "rgb":
        return images
    if images.shape[-1] != 3:
        raise ValueError(
            f"colors={colors!r} converts RGB images, but these have {images.shape[-1]} channel(s): "
            "set data.channels to 3, or model.colors to 'rgb'"
        )
    lab = to_lab(images)
    dtype = lab.dtype
    lab = (lab - _row(CENTRE, lab.ndim, dtype)) / _row(SCALE, lab.ndim, dtype)
    return lab[..., :1] if colors == "lightness" else lab


def standardised_channels(
    images: jax.Array, colors: str, mean: tuple[float, ...], std: tuple[float, ...]
) -> jax.Array:
    """Returns `seen_channels`, standardised by `mean` and `std` if they are the images' own.

    Raises:
      ValueError: as `seen_channels` and `standardise`, or if Lab would be standardised.
    """
    channels = seen_channels(images, colors)
    if colors != "rgb" and not is_neutral(mean, std):
        raise ValueError(
            f"colors={colors!r} centres and scales the channels itself, but mean is {mean} and std "
            f"{std}: set model.mean to (0, 0, 0) and model.std to (1, 1, 1), or model.colors to "
            "'rgb'"
        )
    return standardise(channels, mean, std)


def from_seen(channels: jax.Array) -> jax.Array:
    """Returns Lab [..., 3] from the channels that `colors="lab"` gives."""
    ndim, dtype = channels.ndim, channels.dtype
    return channels * _row(SCALE, ndim, dtype) + _row(CENTRE, ndim, dtype)


def _times(x: jax.Array, matrix: np.ndarray) -> jax.Array:
    """Multiplies rows by a 3x3 matrix without the rounding of accelerators' matrix units."""
    return jnp.matmul(x, jnp.asarray(matrix, x.dtype), precision=lax.Precision.HIGHEST)


def _row(values: np.ndarray, ndim: int, dtype: jnp.dtype) -> jax.Array:
    return jnp.asarray(values, dtype).reshape((1,) * (ndim - 1) + (3,))
