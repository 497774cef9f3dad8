"""A small text transformer: tokens of a caption to one embedding."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ssl_jax.models.vit import EPSILON, Block

POOLS = ("end", "last")


class TextTransformer(nn.Module):
    """Pre-norm transformer with learned positions, and a linear map of one of its tokens.

    Tokens of -1 after the end of a caption are replaced by the caption's last token, its end token.
    With causal attention, nothing before them sees them. Examples never meet.

    Attributes:
      vocabulary: number of tokens.
      width: features per token, a multiple of `heads`.
      depth: number of blocks.
      heads: attention heads per block.
      output_dim: width of the embedding.
      causal: a token sees only itself and the tokens before it, as in CLIP; False: all tokens, as
        in SigLIP.
      pool: token that becomes the embedding: "end" is the end token of the caption (CLIP), "last"
        the last token of the row, which is a repeated end token for short captions (SigLIP).
      dtype: dtype of activations. Parameters, softmax and the statistics of LayerNorm are float32.

    Source: CLIP (Radford et al., arXiv 2103.00020), section 2.4, and openai/CLIP clip/model.py,
    from which the initialisation of embeddings and output is. Blocks are those of `vit.ViT`: GELU
    without CLIP's approximation, Xavier-uniform kernels, epsilon 1e-6.
    """

    vocabulary: int
    width: int = 512
    depth: int = 12
    heads: int = 8
    output_dim: int = 512
    causal: bool = True
    pool: str = "end"
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Tokens int32 [n, t] in [0, vocabulary), or -1 after the end -> float32 [n, output_dim].

        Raises:
          ValueError: if the pooling is unknown or `heads` does not divide the width.
        """
        if self.pool not in POOLS:
            raise ValueError(f"text_pool must be one of {', '.join(POOLS)}, got {self.pool!r}")
        normal = nn.initializers.normal
        end = jnp.maximum((tokens >= 0).sum(1) - 1, 0)
        last = jnp.take_along_axis(tokens, end[:, None], axis=1)
        tokens = jnp.where(tokens < 0, last, tokens)
        table = self.param("token_embed", normal(0.02), (self.vocabulary, self.width), jnp.float32)
        positions = self.param("pos_embed", normal(0.01), (tokens.shape[1], self.width),
                               jnp.float32)  # fmt: skip
        x: Any = (jnp.take(table, tokens, axis=0) + positions[None]).astype(self.dtype)
        for i in range(self.depth):
            x = Block(self.heads, 4, self.dtype, self.causal, name=f"blocks_{i}")(x)
        x = x[:, -1] if self.pool == "last" else jnp.take_along_axis(x, end[:, None, None], 1)[:, 0]
        wide_dtype = jnp.promote_types(self.dtype, jnp.float32)
        x = nn.LayerNorm(epsilon=EPSILON, dtype=wide_dtype, name="norm")(x)
        init = normal(self.width**-0.5)
        return nn.Dense(
            self.output_dim, use_bias=False, kernel_init=init, dtype=wide_dtype, name="proj"
        )(x)
