"""The convolutional decoder: from a code to an image."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ssl_jax.models.conv import conv_general_dilated
from ssl_jax.models.norm import BatchNorm

SMALLEST = 7  # pixels a side that the dense layer may fill; the rest is doubling
WIDEST = 512  # channels


class Decoder(nn.Module):
    """A dense layer to a small picture, doubled and convolved until it has the image's size.

    Batch normalisation and ReLU stand behind every layer but the last, as in DCGAN's generator
    (Radford et al., arXiv 1511.06434, section 3); doubling by nearest neighbours and a convolution
    instead of a transposed one leave no checkerboard (Odena et al., Distill 2016).

    Attributes:
      size: of the image, in pixels a side.
      width: channels at the last doubling; twice as many before each, at most 512.
      bn_group: rows that share normalisation statistics; 0 = the global batch.
      bn_views: views that do not share normalisation statistics (`norm.BatchNorm`).
      dtype: of activations; parameters are float32.
    """

    size: int
    width: int = 64
    bn_group: int = 0
    bn_views: int = 1
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, code: jax.Array, train: bool) -> jax.Array:
        """Codes [n, d] to images [n, size, size, 3] in [0, 1], float32 at least."""
        side, doublings = self.size, 0
        while side > SMALLEST:
            side, doublings = -(-side // 2), doublings + 1
        channels = [min(self.width << i, WIDEST) for i in reversed(range(doublings + 1))]
        x = nn.Dense(side**2 * channels[0], use_bias=False, dtype=self.dtype, name="dense")(code)
        x = self._activate(x.reshape(len(x), side, side, channels[0]), "bn0", train)
        for i in range(1, doublings + 1):
            x = x.repeat(2, axis=1).repeat(2, axis=2)
            x = self._conv(x, channels[i], f"conv{i}", use_bias=False)
            x = self._activate(x, f"bn{i}", train)
        first = (x.shape[1] - self.size) // 2
        x = x[:, first : first + self.size, first : first + self.size]
        wide = jnp.promote_types(self.dtype, jnp.float32)
        return nn.sigmoid(self._conv(x, 3, "pixels", dtype=wide))

    def _activate(self, x: jax.Array, name: str, train: bool) -> jax.Array:
        norm = BatchNorm(group=self.bn_group, views=self.bn_views, dtype=self.dtype, name=name)
        return nn.relu(norm(x, train))

    def _conv(self, x: jax.Array, channels: int, name: str, **options) -> jax.Array:
        options = {"dtype": self.dtype, "conv_general_dilated": conv_general_dilated} | options
        return nn.Conv(channels, (3, 3), name=name, **options)(x)
