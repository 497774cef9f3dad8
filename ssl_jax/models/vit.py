"""Vision Transformers equal to timm's `vit_*_patch16_224` up to rounding.

Positions are fixed or learned.

Names follow timm (patch_embed, blocks_0/attn/proj, blocks_0/mlp/fc1, norm ...). Queries, keys and
values have separate kernels, which are initialised and adapted by LARS separately; timm's qkv is
the concatenation of the three.
"""

import math
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from ssl_jax.models.options import POOLS
from ssl_jax.models.standard import MEAN, STD, standardise

EPSILON = 1e-6
TEMPERATURE = 10_000.0
XAVIER = nn.initializers.xavier_uniform()


def patchify(images: jax.Array, patch_size: int) -> jax.Array:
    """Cuts images [n, h, w, c] into square patches [n, t, patch_size, patch_size, c], row by row.

    Raises:
      ValueError: if patch_size does not divide h and w.
    """
    n, h, w, c = images.shape
    if h % patch_size or w % patch_size:
        raise ValueError(
            f"images of {h} x {w} pixels cannot be cut into patches of {patch_size} x {patch_size}"
        )
    x = images.reshape(n, h // patch_size, patch_size, w // patch_size, patch_size, c)
    return x.swapaxes(2, 3).reshape(n, -1, patch_size, patch_size, c)


def unpatchify(patches: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Reverses `patchify`.

    Args:
      patches: [n, t, ...], where a patch of p x p pixels holds p * p * c values in the order row,
        column, channel, in any number of axes, for example [n, t, p, p, c].
      shape: (n, h, w, c) of the images, with t = (h / p) * (w / p).

    Returns:
      Images [n, h, w, c], in the dtype of the patches.

    Raises:
      TypeError: if the patches are not square or do not fill the shape.
    """
    n, h, w, c = shape
    t = patches.shape[1]
    side = math.isqrt(h * w // t)
    x = patches.reshape(n, h // side, w // side, side, side, c)
    return x.swapaxes(2, 3).reshape(shape)


def positions(rows: int, columns: int, width: int) -> np.ndarray:
    """Sine-cosine positions of a grid of patches, [rows * columns, width] float64, row by row.

    Each quarter of the features holds one of sin(column), cos(column), sin(row) and cos(row), where
    the coordinates are divided by 10000^(4i / width). This is MAE's order. MoCo v3 has rows first,
    which is the same network for training.

    Raises:
      ValueError: if width is not a multiple of 4.

    Source: MoCo v3 (arXiv 2104.02057), "ViT architecture"; MAE (arXiv 2111.06377), appendix A.1.
    Both leave the formula to their code.
    """
    if width % 4:
        raise ValueError(f"width must be a multiple of 4 for sine-cosine positions, got {width}")
    frequencies = TEMPERATURE ** -(np.arange(width // 4) / (width // 4))
    row, column = np.indices((rows, columns)).reshape(2, -1, 1) * frequencies
    return np.concatenate([np.sin(column), np.cos(column), np.sin(row), np.cos(row)], axis=1)


class Attention(nn.Module):
    """Multi-head self-attention. Source: Vaswani et al. (arXiv 1706.03762), section 3.2.2.

    Attributes:
      heads: number of heads.
      dtype: dtype of activations.
      causal: a token sees only itself and the tokens before it.
    """

    heads: int
    dtype: DTypeLike
    causal: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Tokens [n, t, f] -> [n, t, f]; the softmax is computed in float32 or wider.

        Raises:
          ValueError: if `heads` does not divide f.
        """
        n, t, f = x.shape
        if f % self.heads:
            raise ValueError(f"{self.heads} heads do not divide the width {f}")
        dense = partial(nn.Dense, f, kernel_init=XAVIER, dtype=self.dtype)
        q, k, v = (dense(name=name)(x).reshape(n, t, self.heads, -1) for name in "qkv")
        # Not jax.nn.dot_product_attention, which rounds float64 to float32. The gradient of the key
        # biases is pure rounding, and comparisons in float64 would notice it.
        wide_dtype = jnp.promote_types(self.dtype, jnp.float32)
        logits = jnp.einsum("nqhd,nkhd->nhqk", q, k, preferred_element_type=wide_dtype)
        if self.causal:
            before = np.tril(np.ones((1, 1, t, t), bool))
            logits = jnp.where(before, logits, jnp.finfo(wide_dtype).min)
        weights = nn.softmax(logits * (f // self.heads) ** -0.5).astype(v.dtype)
        if not self.is_initializing():  # init() makes every collection mutable
            self.sow("attention", "weights", weights)  # kept only if "attention" is mutable
        return dense(name="proj")(jnp.einsum("nhqk,nkhd->nqhd", weights, v).reshape(n, t, f))


class Mlp(nn.Module):
    """Two dense layers with a GELU between them (error function, not the tanh approximation)."""

    ratio: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Tokens [n, t, f] -> [n, t, f], with ratio * f hidden features."""
        f = x.shape[-1]
        dense = partial(nn.Dense, kernel_init=XAVIER, dtype=self.dtype)
        x = nn.gelu(dense(self.ratio * f, name="fc1")(x), approximate=False)
        return dense(f, name="fc2")(x)


class Block(nn.Module):
    """Attention and MLP, each applied to the normalised residual stream and added ("pre-norm").

    Source: Dosovitskiy et al. (arXiv 2010.11929), equations 2 and 3.
    """

    heads: int
    mlp_ratio: int
    dtype: DTypeLike
    causal: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Tokens [n, t, f] -> [n, t, f]."""
        norm = partial(nn.LayerNorm, epsilon=EPSILON, dtype=self.dtype)
        x = x + Attention(self.heads, self.dtype, self.causal, name="attn")(norm(name="norm1")(x))
        return x + Mlp(self.mlp_ratio, self.dtype, name="mlp")(norm(name="norm2")(x))


class ViT(nn.Module):
    """Vision Transformer without classifier: images to pooled features.

    Kernels are initialised Xavier-uniform (the patch embedding as the linear map that it is), the
    class token with N(0, 1e-12), biases with 0. Examples never meet.

    Attributes:
      patch_size: side of a patch in pixels.
      width: features per token; a multiple of 4 and of `heads`.
      depth: number of blocks.
      heads: attention heads per block.
      mlp_ratio: hidden width of the MLP relative to `width`.
      pool: "token" uses the class token as features, "mean" the mean of the patch tokens.
      positions: "sincos" adds constants to the patch tokens and nothing to the class token.
        "learned" adds the parameter "pos_embed" [1 + t, width] to patch and class tokens. It is
        initialised with N(0, 0.02²) and fixes the image size.
      mean: mean of the images' channels; images are standardised first.
      std: standard deviation of the images' channels.
      dtype: dtype of activations. Parameters, softmax and the statistics of LayerNorm are float32.

    Source: Dosovitskiy et al. (arXiv 2010.11929), section 3.1; positions and initialisation as in
    MoCo v3 (arXiv 2104.02057) and its code.
    """

    patch_size: int = 16
    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_ratio: int = 4
    pool: str = "token"
    positions: str = "sincos"
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD
    dtype: DTypeLike = jnp.float32

    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Images [n, h, w, 3] -> features [n, width] float32, after the last normalisation.

        Raises:
          ValueError: as in `tokens`, or if the pooling is unknown.
        """
        if self.pool not in POOLS:
            raise ValueError(f"pool must be 'token' or 'mean', got {self.pool!r}")
        tokens = self.tokens(x, train)
        return tokens[:, 0] if self.pool == "token" else tokens[:, 1:].mean(1)

    @nn.compact
    def tokens(self, x: jax.Array, train: bool, keep: jax.Array | None = None) -> jax.Array:
        """Images [n, h, w, 3] -> tokens [n, 1 + t, width] float32, the class token first.

        Args:
          x: images.
          train: ignored, because there is no dropout.
          keep: int [n, t], the patches to encode, numbered row by row, in the order of the result.
            None encodes all. An index beyond the last patch makes the tokens of its example NaN.

        Raises:
          ValueError: if the patch size does not divide h and w, the width does not fit, the
            positions are unknown, or mean or std is invalid.
          flax.errors.ScopeParamShapeError: if positions were learned at another image size.

        Source: `keep` follows MAE (arXiv 2111.06377), section 3: first positions, then the choice.
        """
        del train
        n, h, w, _ = x.shape
        # A product instead of a convolution: on a CPU, convolutions are slow in loops over
        # micro-batches.
        x = nn.DenseGeneral(
            self.width,
            axis=(-3, -2, -1),
            kernel_init=XAVIER,
            dtype=self.dtype,
            name="patch_embed",
        )(patchify(standardise(x, self.mean, self.std), self.patch_size))
        patch_positions, token_position = self._positions(
            h // self.patch_size, w // self.patch_size
        )
        x = x + jnp.asarray(patch_positions, x.dtype)[None]
        if keep is not None:
            x = jnp.take_along_axis(x, keep[..., None], axis=1)
        # One axis only, as in timm: like biases and scales, the class token has no weight decay.
        cls = self.param("cls_token", nn.initializers.normal(1e-6), (self.width,), jnp.float32)
        cls = (
            cls.astype(x.dtype)
            if token_position is None
            else cls.astype(x.dtype) + token_position.astype(x.dtype)
        )
        cls = jnp.broadcast_to(cls, (n, 1, self.width))
        x = jnp.concatenate([cls, x], axis=1)
        for i in range(self.depth):
            x = Block(self.heads, self.mlp_ratio, self.dtype, name=f"blocks_{i}")(x)
        dtype = jnp.promote_types(self.dtype, jnp.float32)
        return nn.LayerNorm(epsilon=EPSILON, dtype=dtype, name="norm")(x)

    def _positions(self, rows: int, columns: int) -> tuple[jax.Array | np.ndarray, Any]:
        """Returns the positions of the patches [rows * columns, width] and of the class token."""
        if self.positions == "sincos":
            return positions(rows, columns, self.width), None
        if self.positions != "learned":
            raise ValueError(f"positions must be 'sincos' or 'learned', got {self.positions!r}")
        shape = (1 + rows * columns, self.width)
        table = self.param("pos_embed", nn.initializers.normal(0.02), shape, jnp.float32)
        return table[1:], table[0]
