"""Convolutional discriminator: tells real images from generated ones."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ssl_jax.models.conv import conv_general_dilated
from ssl_jax.models.norm import BatchNorm

LAST_SIDE = 4  # side in pixels at which the dense layer follows
MAX_CHANNELS = 512
SLOPE = 0.2  # of leaky ReLU below 0
PAD = ((1, 1), (1, 1))


class Discriminator(nn.Module):
    """Convolutions that halve the image until a dense layer makes one logit of it, as in DCGAN.

    Leaky ReLU follows every convolution, batch normalisation every convolution but the first.
    Weights are drawn from N(0, 0.02²). There are no biases but those of the normalisations.

    Attributes:
      width: channels of the first convolution. Each later one has twice as many, at most 512.
      bn_group: rows that share normalisation statistics; 0 = the global batch.
      bn_views: views that do not share normalisation statistics (`norm.BatchNorm`).
      dtype: dtype of activations; parameters are float32.

    Source: Radford et al. (arXiv 1511.06434), section 3; layers from the code of context encoders,
    pathak22/context-encoder train.lua (netD).
    """

    width: int = 64
    bn_group: int = 0
    bn_views: int = 1
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Images [n, h, h, c] -> logits [n, 1] of being real, in float32 or wider.

        Raises:
          ValueError: if the images have a single pixel.
        """
        if x.shape[1] < 2:
            raise ValueError(f"a discriminator needs at least 2 pixels a side, got {x.shape[1]}")
        init = nn.initializers.normal(0.02)
        x = x.astype(self.dtype)
        i = 0
        while i == 0 or x.shape[1] > LAST_SIDE:
            x = nn.Conv(
                min(self.width << i, MAX_CHANNELS),
                (4, 4),
                strides=2,
                padding=PAD,
                use_bias=False,
                kernel_init=init,
                dtype=self.dtype,
                conv_general_dilated=conv_general_dilated,
                name=f"conv{i}",
            )(x)
            if i:
                norm = BatchNorm(
                    group=self.bn_group, views=self.bn_views, dtype=self.dtype, name=f"bn{i}"
                )
                x = norm(x, train)
            x = nn.leaky_relu(x, SLOPE)
            i += 1
        wide_dtype = jnp.promote_types(self.dtype, jnp.float32)
        x = x.reshape(len(x), -1)
        return nn.Dense(1, use_bias=False, kernel_init=init, dtype=wide_dtype, name="logit")(x)
