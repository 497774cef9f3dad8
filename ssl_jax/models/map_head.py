"""Head that predicts something at every place of an image."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike

from ssl_jax.models.conv import conv_general_dilated
from ssl_jax.models.norm import BatchNorm


class MapHead(nn.Module):
    """A 3x3 convolution with BatchNorm and ReLU, a 1x1 convolution, and linear interpolation.

    Prediction j belongs to pixel `stride` j of the image, in rows and columns. The last two layers
    commute, so the 1x1 convolution works on the map, which is usually smaller.

    Attributes:
      side: width and height of the prediction.
      outputs: channels of the prediction.
      hidden: channels of the first convolution.
      stride: distance of the predicted pixels in the image.
      grid: first and step: cell i of the map belongs to pixel first + step i (`ResNet.grid`).
      bn_group: rows that share normalisation statistics; 0 = the global batch.
      bn_views: views that do not share normalisation statistics (`norm.BatchNorm`).
      dtype: dtype of activations; parameters and the prediction are float32.
    """

    side: int
    outputs: int
    hidden: int
    stride: int
    grid: tuple[float, int]
    bn_group: int = 0
    bn_views: int = 1
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps [n, h, w, f] -> predictions [n, side, side, outputs], in float32 or wider."""
        conv = partial(nn.Conv, conv_general_dilated=conv_general_dilated)
        x = conv(self.hidden, (3, 3), use_bias=False, dtype=self.dtype, name="conv")(x)
        norm = BatchNorm(group=self.bn_group, views=self.bn_views, dtype=self.dtype, name="bn")
        x = nn.relu(norm(x, train))
        wide_dtype = jnp.promote_types(self.dtype, jnp.float32)
        x = conv(self.outputs, (1, 1), dtype=wide_dtype, name="outputs")(x)
        first, step = self.grid
        return interpolate(x, (self.stride * np.arange(self.side) - first) / step)


def interpolate(maps: jax.Array, at: np.ndarray) -> jax.Array:
    """Reads maps between their cells, by linear interpolation in rows and columns.

    Args:
      maps: [n, h, w, c], floating point.
      at: [m], coordinates in rows and in columns; cell i has coordinate i. Coordinates outside the
        map read its edge.

    Returns:
      [n, m, m, c] in the dtype of the maps.
    """
    rows, columns = (_weights(at, cells, maps.dtype) for cells in maps.shape[1:3])
    maps = jnp.einsum("mh,nhwc->nmwc", rows, maps, precision=lax.Precision.HIGHEST)
    return jnp.einsum("mw,nhwc->nhmc", columns, maps, precision=lax.Precision.HIGHEST)


def _weights(at: np.ndarray, cells: int, dtype: DTypeLike) -> jax.Array:
    """Returns the weight of each cell at each coordinate, [m, cells]; rows sum to 1."""
    distance = np.abs(at.clip(0, cells - 1)[:, None] - np.arange(cells))
    return jnp.asarray(np.maximum(1 - distance, 0), dtype)
