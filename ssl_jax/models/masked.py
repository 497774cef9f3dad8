"""Decoder of masked autoencoders: from the tokens of visible patches to all pixels."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ssl_jax.models.vit import EPSILON, XAVIER, Block, positions


class MaskedDecoder(nn.Module):
    """Predicts the pixels of all patches from visible tokens and one learned token for all others.

    Attributes:
      patch_size: side of a patch in pixels.
      width: width of the transformer blocks.
      depth: number of transformer blocks.
      heads: attention heads per block.
      channels: channels of the images.
      dtype: dtype of activations; parameters are float32.

    Source: MAE (He et al. 2021, arXiv 2111.06377), section 3 and appendix A.1.
    """

    patch_size: int
    width: int = 512
    depth: int = 8
    heads: int = 16
    channels: int = 3
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, tokens: jax.Array, order: jax.Array, grid: tuple[int, int]) -> jax.Array:
        """Predicts all patches, [n, t, patch_size² · channels] in row-major order.

        The pixels are float32 or wider.

        Args:
          tokens: [n, 1 + k, f], the class token and the tokens of the patches order[:, :k].
          order: int [n, t], a permutation of each image's patches, the visible ones first.
          grid: number of patches (down, across), t in total.
        """
        n, t = order.shape
        wide_dtype = jnp.promote_types(self.dtype, jnp.float32)
        dense = partial(nn.Dense, kernel_init=XAVIER)
        x = dense(self.width, dtype=self.dtype, name="embed")(tokens)
        cls, visible = x[:, :1], x[:, 1:]
        mask = self.param("mask_token", nn.initializers.normal(0.02), (self.width,), jnp.float32)
        hidden = (n, t - visible.shape[1], self.width)
        mask = jnp.broadcast_to(mask.astype(x.dtype), hidden)
        x = jnp.concatenate([visible, mask], axis=1)
        x = jnp.take_along_axis(x, jnp.argsort(order, axis=1)[..., None], axis=1)
        x = x + jnp.asarray(positions(*grid, self.width), x.dtype)[None]
        x = jnp.concatenate([cls, x], axis=1)
        for i in range(self.depth):
            x = Block(self.heads, 4, self.dtype, name=f"blocks_{i}")(x)
        x = nn.LayerNorm(epsilon=EPSILON, dtype=self.dtype, name="norm")(x)
        return dense(self.channels * self.patch_size**2, dtype=wide_dtype, name="pixels")(x[:, 1:])
