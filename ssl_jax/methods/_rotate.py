"""Rotation of square images: exact quarter turns, and any angle without telltale interpolation."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

BLUR = 0.8  # standard deviation of the low-pass filter, in pixels
GREY = 0.5  # colour outside the inscribed circle


def quarter_turns(images: jax.Array) -> jax.Array:
    """Turns images [n, h, h, c] counter-clockwise by 0, 90, 180 and 270 degrees: [n, 4, h, h, c].

    The rotations are transposes and flips, so no pixel changes its value.
    """
    turned = images.swapaxes(1, 2)
    turns = [images, turned[:, ::-1], images[:, ::-1, ::-1], turned[:, :, ::-1]]
    return jnp.stack(turns, axis=1)


def take_turn(images: jax.Array, turns: jax.Array) -> jax.Array:
    """Turns each image [n, h, h, c] counter-clockwise by its number of quarter turns, int [n]."""
    index = (turns % 4).reshape(-1, 1, 1, 1, 1)
    return jnp.take_along_axis(quarter_turns(images), index, axis=1)[:, 0]


def rotate(image: jax.Array, angle: jax.Array) -> jax.Array:
    """Rotates an image [h, h, c] counter-clockwise and hides everything outside a circle.

    The corners would show the angle, so only the inscribed circle is kept. Interpolation would show
    it, too: bilinear weights blur more at 45 degrees than at 0. Therefore, the circle is blurred
    first, equally in all directions, and then rotated by three shears. Each shear shifts rows or
    columns by a phase in Fourier space, which changes no amplitude. Around the blurred circle, all
    pixels are equal, so that the periodic signal has no jump at its ends. A trace remains: what the
    blur leaves of the highest frequencies along the diagonals depends on the angle to the nearest
    quarter turn.

    Args:
      image: [h, h, c].
      angle: radians in [-pi / 4, pi / 4]. `take_turn` does the rest of a larger angle.

    Returns:
      [h, h, c] in float32 or wider; slightly beyond the range of the image near sharp edges. Pixels
      outside the circle have the value GREY.

    Source: Unser et al., Convolution-based interpolation for fast, high-quality rotation of images
    (IEEE Transactions on Image Processing 4, 1995), section II: three shears.
    """
    h = image.shape[0]
    inside = jnp.asarray(circle(h))[..., None]
    x = jnp.where(inside, image.astype(jnp.promote_types(image.dtype, jnp.float32)) - GREY, 0)
    # Shears move the circle beyond the image by up to 4 % of its side, and the blur by 3 pixels.
    margin = h // 24 + 4
    x = jnp.pad(x, [(margin, margin), (margin, margin), (0, 0)])
    n = x.shape[0]
    low_pass = jnp.asarray(_low_pass(n), x.dtype)
    x = jnp.einsum("ij,kl,jlc->ikc", low_pass, low_pass, x, precision=lax.Precision.HIGHEST)
    position = jnp.arange(n, dtype=x.dtype) - (n - 1) / 2
    across, down = -jnp.tan(angle / 2) * position, jnp.sin(angle) * position
    x = _sample(x, across)
    x = _sample(x.swapaxes(0, 1), down).swapaxes(0, 1)
    x = _sample(x, across)[margin : margin + h, margin : margin + h]
    return jnp.where(inside, x, 0) + GREY


def circle(h: int) -> np.ndarray:
    """Returns which pixels of an image of side h lie in the inscribed circle, bool [h, h]."""
    position = np.arange(h) - (h - 1) / 2
    return position[:, None] ** 2 + position**2 <= (h / 2) ** 2


def _low_pass(n: int) -> np.ndarray:
    """Returns the matrix [n, n] of a periodic Gaussian filter."""
    response = np.exp(-2 * (math.pi * BLUR * np.fft.fftfreq(n)) ** 2)
    return np.fft.ifft(response[:, None] * np.fft.fft(np.eye(n), axis=0), axis=0).real


def _sample(x: jax.Array, offset: jax.Array) -> jax.Array:
    """Samples each row of x [rows, n, c] `offset` [rows] pixels to the right, as a periodic signal.

    Matrices replace the FFT, which XLA does not divide over devices.
    """
    n = x.shape[1]
    precision = lax.Precision.HIGHEST
    frequency = np.arange(n // 2 + 1)  # a real signal needs no negative frequencies
    transform = np.exp(-2j * math.pi / n * np.outer(frequency, np.arange(n)))
    # Each frequency but 0 and the highest stands for its negative, too.
    weight = np.where((frequency == 0) | (2 * frequency == n), 1, 2) / n
    dtype = jnp.result_type(x.dtype, jnp.complex64)
    spectrum = jnp.einsum("fx,rxc->rfc", jnp.asarray(transform, dtype), x, precision=precision)
    turn = jnp.asarray(2 * math.pi / n * frequency, x.dtype)
    phase = jnp.exp(1j * offset[:, None] * turn[None, :])
    inverse = jnp.asarray((transform.conj() * weight[:, None]).T, dtype)
    return jnp.einsum("xf,rfc->rxc", inverse, spectrum * phase[..., None], precision=precision).real
