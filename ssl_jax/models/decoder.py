"""Convolutional decoder from a code to an image."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ssl_jax.models.conv import conv_general_dilated
from ssl_jax.models.norm import BatchNorm

MAX_DENSE_SIDE = 7  # largest side in pixels that the dense layer fills; doublings do the rest
MAX_CHANNELS = 512


class Decoder(nn.Module):
    """A dense layer makes a small image, which is doubled and convolved until it has the full size.

    Every layer but the last is followed by batch normalisation and ReLU, as in DCGAN's generator
    (Radford et al., arXiv 1511.06434, section 3). Nearest-neighbour doubling and a convolution
    replace the transposed convolution, which would leave a checkerboard (Odena et al., Distill
    2016).

    Attributes:
      size: side of the image in pixels.
      width: channels after the last doubling. Each earlier stage has twice as many, at most 512.
      channels: channels of the image.
      logits: return the logits of the pixels, for a cross-entropy.
      bn_group: rows that share normalisation statistics; 0 = the global batch.
      bn_views: views that do not share normalisation statistics (`norm.BatchNorm`).
      dtype: dtype of activations; parameters are float32.
    """

    size: int
    width: int = 64
    channels: int = 3
    logits: bool = False
    bn_group: int = 0
    bn_views: int = 1
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, code: jax.Array, train: bool) -> jax.Array:
        """Codes [n, d] -> images [n, size, size, channels], in float32 or wider."""
        side, doublings = self.size, 0
        while side > MAX_DENSE_SIDE:
            side, doublings = -(-side // 2), doublings + 1
        widths = [min(self.width << i, MAX_CHANNELS) for i in reversed(range(doublings + 1))]
        x = nn.Dense(side**2 * widths[0], use_bias=False, dtype=self.dtype, name="dense")(code)
        x = self._activate(x.reshape(len(x), side, side, widths[0]), "bn0", train)
        for i in range(1, doublings + 1):
            x = x.repeat(2, axis=1).repeat(2, axis=2)
            x = self._conv(x, widths[i], f"conv{i}", use_bias=False)
            x = self._activate(x, f"bn{i}", train)
        first = (x.shape[1] - self.size) // 2
        x = x[:, first : first + self.size, first : first + self.size]
        wide_dtype = jnp.promote_types(self.dtype, jnp.float32)
        x = self._conv(x, self.channels, "pixels", dtype=wide_dtype)
        return x if self.logits else nn.sigmoid(x)

    def _activate(self, x: jax.Array, name: str, train: bool) -> jax.Array:
        norm = BatchNorm(group=self.bn_group, views=self.bn_views, dtype=self.dtype, name=name)
        return nn.relu(norm(x, train))

    def _conv(self, x: jax.Array, channels: int, name: str, **options) -> jax.Array:
        options = {"dtype": self.dtype, "conv_general_dilated": conv_general_dilated} | options
        return nn.Conv(channels, (3, 3), name=name, **options)(x)
