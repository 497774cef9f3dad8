"""Guards against trivial solutions of tasks with patches: colour and resolution of a patch.

Lenses focus colours differently (chromatic aberration), so that the offset of green against red and
blue tells where in the picture a patch was. Source of this module: Doersch et al. (arXiv
1505.05192), section 3.1 ("Avoiding trivial solutions") and section 4.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ssl_jax.models.standard import standardise, unstandardise

LOWEST_SIDE = 10  # pixels of the smallest resolution: "as little as 100 total pixels"
NOISE = 0.01  # standard deviation of the noise in dropped channels, relative to the kept channel
EPSILON = 1e-5
_AXIS = np.array([[-1.0, 2.0, -1.0]])  # green against magenta
REMOVE_GREEN_MAGENTA = np.eye(3) - _AXIS.T @ _AXIS / (_AXIS @ _AXIS.T)


def drop_colours(
    tiles: jax.Array, key: jax.Array, mean: tuple[float, ...], std: tuple[float, ...]
) -> jax.Array:
    """Keeps one random channel of each tile and replaces the others by faint noise.

    The kept channel is centred, and the tile is scaled to a mean square of 1, as in the authors'
    code. Both happen in standardised colours, in which an average image has such a scale, too.

    Args:
      tiles: [t, s, s, 3] in [0, 1].
      key: random key.
      mean, std: statistics by which the encoder standardises images.

    Returns:
      Tiles of the same shape, which the encoder will standardise.
    """
    keys = jax.random.split(key)
    x = standardise(tiles, mean, std)
    x = x - x.mean((1, 2), keepdims=True)
    channel = jax.random.randint(keys[0], (len(x), 1, 1, 1), 0, 3)
    kept = channel == jnp.arange(3).reshape(1, 1, 1, 3)
    power = jnp.where(kept, jnp.square(x), 0).sum(-1, keepdims=True).mean((1, 2), keepdims=True)
    deviation = jnp.sqrt(power + EPSILON)
    x = jnp.where(kept, x, NOISE * deviation * jax.random.normal(keys[1], x.shape, x.dtype))
    x = x * lax.rsqrt(jnp.square(x).mean((1, 2, 3), keepdims=True) + EPSILON)
    return unstandardise(x, mean, std)


def project_colours(tiles: jax.Array) -> jax.Array:
    """Removes the green-magenta component from the colours of tiles [..., 3]; grey is unchanged."""
    matrix = jnp.asarray(REMOVE_GREEN_MAGENTA, tiles.dtype)
    return jnp.matmul(tiles, matrix, precision=lax.Precision.HIGHEST)


def lower_resolution(tiles: jax.Array, key: jax.Array, probability: float) -> jax.Array:
    """Reduces random tiles [t, s, s, c] to a random side of 10 to s - 1 pixels, and enlarges them.

    The number of pixels is drawn uniformly, as in the authors' code.
    """
    keys = jax.random.split(key)
    t, s = tiles.shape[:2]
    area = jax.random.uniform(keys[0], (t,), minval=LOWEST_SIDE**2, maxval=(s - 1) ** 2)
    side = jnp.floor(jnp.sqrt(area)).astype(jnp.int32)
    chosen = jax.random.bernoulli(keys[1], probability, (t, 1, 1, 1))
    return jnp.where(chosen, jax.vmap(through_side)(tiles, side), tiles)


def through_side(tile: jax.Array, side: jax.Array) -> jax.Array:
    """Resizes a tile [s, s, c] to side x side pixels and back, linearly and with antialiasing.

    `side` may be traced: both resizes are one s x s matrix, in which only the first `side` rows of
    the reduction are used.
    """
    s = tile.shape[0]
    dtype = jnp.promote_types(tile.dtype, jnp.float32)
    places = jnp.arange(s, dtype=dtype) + 0.5
    scale = s / side.astype(dtype)
    distance = jnp.abs(places[:, None] * scale - places[None, :])
    down = _rows_of_sum_one(jnp.maximum(1 - distance / scale, 0))
    distance = jnp.abs(places[:, None] / scale - places[None, :])
    is_used = jnp.arange(s)[None, :] < side
    up = _rows_of_sum_one(jnp.where(is_used, jnp.maximum(1 - distance, 0), 0))
    both = jnp.matmul(up, down, precision=lax.Precision.HIGHEST)
    return jnp.einsum("oi,pj,ijc->opc", both, both, tile, precision=lax.Precision.HIGHEST)


def _rows_of_sum_one(weights: jax.Array) -> jax.Array:
    """Scales rows [n, m] of weights to the sum 1; a row of zeros stays zero."""
    total = weights.sum(1, keepdims=True)
    return weights / jnp.where(total > 0, total, 1)
