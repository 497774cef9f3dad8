"""Head that predicts something at every place of an image."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ssl_jax.models.conv import conv_general_dilated
from ssl_jax.models.norm import BatchNorm


class MapHead(nn.Module):
    """A 3x3 convolution with BatchNorm and ReLU, a 1x1 convolution, and resizing.

    The last two commute if the map is enlarged, so the 1x1 convolution works on the smaller map.

    Attributes:
      side: width and height of the prediction.
      outputs: channels of the prediction.
      hidden: channels of the first convolution.
      bn_group: rows that share normalisation statistics; 0 = the global batch.
      bn_views: views that do not share normalisation statistics (`norm.BatchNorm`).
      dtype: dtype of activations; parameters and the prediction are float32.
    """

    side: int
    outputs: int
    hidden: int
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
        return jax.image.resize(x, (len(x), self.side, self.side, self.outputs), "linear")
