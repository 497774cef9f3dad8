"""Vision Transformers equal to timm's `vit_*_patch16_224` to rounding; positions fixed or learned.

Names follow timm (patch_embed, blocks_0/attn/proj, blocks_0/mlp/fc1, norm ...). Queries, keys and
values have a kernel each, initialised and adapted by LARS as three: timm's qkv is the three joined.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from ssl_jax.models import POOLS
from ssl_jax.models.standard import MEAN, STD, standardise

EPSILON = 1e-6
TEMPERATURE = 10_000.0
XAVIER = nn.initializers.xavier_uniform()


def patchify(images: jax.Array, patch_size: int) -> jax.Array:
    """Cuts images [n, h, w, c] into square patches [n, t, patch_size, patch_size, c], row by row.

    Raises:
      ValueError: patch_size does not divide h and w.
    """
    n, h, w, c = images.shape
    if h % patch_size or w % patch_size:
        raise ValueError(
            f"images of {h} x {w} pixels do not divide into patches of {patch_size} x {patch_size}"
        )
    x = images.reshape(n, h // patch_size, patch_size, w // patch_size, patch_size, c)
    return x.swapaxes(2, 3).reshape(n, -1, patch_size, patch_size, c)


def positions(rows: int, columns: int, width: int) -> np.ndarray:
    """Sine-cosine positions of a grid of patches: [rows * columns, width] float64, row by row.

    A quarter of the features each: sin and cos of column / 10000^(4i / width), then of the row.
    This is MAE's order; MoCo v3 has rows first, which for training is the same network.

    Raises:
      ValueError: width is no multiple of 4.

    Source: MoCo v3 (arXiv 2104.02057), "ViT architecture"; MAE (arXiv 2111.06377), appendix A.1;
    both leave the formula to their code.
    """
    if width % 4:
        raise ValueError(f"width {width}: positions take a multiple of 4")
    frequencies = TEMPERATURE ** -(np.arange(width // 4) / (width // 4))
    row, column = np.indices((rows, columns)).reshape(2, -1, 1) * frequencies
    return np.concatenate([np.sin(column), np.cos(column), np.sin(row), np.cos(row)], axis=1)


class Attention(nn.Module):
    """Multi-head self-attention. Source: Vaswani et al. (arXiv 1706.03762), section 3.2.2."""

    heads: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[n, t, f] -> [n, t, f]; the softmax is in float32 at least.

        Raises:
          ValueError: `heads` does not divide f.
        """
        n, t, f = x.shape
        if f % self.heads:
            raise ValueError(f"{self.heads} heads do not divide a width of {f}")
        dense = partial(nn.Dense, f, kernel_init=XAVIER, dtype=self.dtype)
        q, k, v = (dense(name=name)(x).reshape(n, t, self.heads, -1) for name in "qkv")
        # Not jax.nn.dot_product_attention, which takes float64 to float32: the biases of the keys
        # have no gradient but rounding, and comparisons in float64 would find it.
        wide = jnp.promote_types(self.dtype, jnp.float32)
        logits = jnp.einsum("nqhd,nkhd->nhqk", q, k, preferred_element_type=wide)
        weights = nn.softmax(logits * (f // self.heads) ** -0.5).astype(v.dtype)
        return dense(name="proj")(jnp.einsum("nhqk,nkhd->nqhd", weights, v).reshape(n, t, f))


class Mlp(nn.Module):
    """Two dense layers around a GELU by the error function, not its tanh approximation."""

    ratio: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[n, t, f] -> [n, t, f], by way of ratio * f."""
        f = x.shape[-1]
        dense = partial(nn.Dense, kernel_init=XAVIER, dtype=self.dtype)
        x = nn.gelu(dense(self.ratio * f, name="fc1")(x), approximate=False)
        return dense(f, name="fc2")(x)


class Block(nn.Module):
    """Attention and MLP, each on the normalised sum so far and added to it ("pre-norm").

    Source: Dosovitskiy et al. (arXiv 2010.11929), equations 2 and 3.
    """

    heads: int
    mlp_ratio: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[n, t, f] -> [n, t, f]."""
        norm = partial(nn.LayerNorm, epsilon=EPSILON, dtype=self.dtype)
        x = x + Attention(self.heads, self.dtype, name="attn")(norm(name="norm1")(x))
        return x + Mlp(self.mlp_ratio, self.dtype, name="mlp")(norm(name="norm2")(x))


class ViT(nn.Module):
    """Vision Transformer without classifier: images to pooled features.

    Kernels start Xavier-uniform (the patch embedding as the linear map it is), the class token as
    N(0, 1e-12), biases at 0. No example meets another.

    Attributes:
      patch_size: side of a patch, in pixels.
      width: features of a token, a multiple of 4 and of `heads`.
      depth: blocks.
      heads: of every attention.
      mlp_ratio: width of the MLP's hidden layer over `width`.
      pool: features are "token", the class token, or "mean", the mean of the patch tokens.
      positions: "sincos": constants, none for the class token; or "learned": parameter "pos_embed"
        [1 + t, width], added to the class token too, starting as N(0, 0.02²), for one image size.
      mean, std: of the images' channels; images are standardised by them first.
      dtype: of activations; parameters, softmax and the statistics of LayerNorm are float32.

    Source: Dosovitskiy et al. (arXiv 2010.11929), section 3.1; positions and initialisation as in
    MoCo v3 (arXiv 2104.02057) and its released code.
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
        """Images [n, h, w, 3] to features [n, width] float32, after the last normalisation.

        Raises:
          ValueError: as `tokens`, or on an unknown pooling.
        """
        if self.pool not in POOLS:
            raise ValueError(f"pool {self.pool!r}: 'token' or 'mean'")
        tokens = self.tokens(x, train)
        return tokens[:, 0] if self.pool == "token" else tokens[:, 1:].mean(1)

    @nn.compact
    def tokens(self, x: jax.Array, train: bool, keep: jax.Array | None = None) -> jax.Array:
        """Images [n, h, w, 3] to tokens [n, 1 + t, width] float32, the class token first.

        Args:
          train: changes nothing: there is no dropout.
          keep: int [n, t], the patches to encode, counted row by row, in the order of the result;
            None encodes all. An index beyond the patches makes its example NaN.

        Raises:
          ValueError: the patch size does not divide h and w, the width does not fit, unknown
            positions, or a mean or std that is none.
          flax.errors.ScopeParamShapeError: positions learned at another image size.

        Source: of `keep`, MAE (arXiv 2111.06377), section 3: positions, then the choice.
        """
        del train
        n, h, w, _ = x.shape
        # A product, not a convolution: on a CPU those are slow in loops over micro-batches.
        x = nn.DenseGeneral(
            self.width,
            axis=(-3, -2, -1),
            kernel_init=XAVIER,
            dtype=self.dtype,
            name="patch_embed",
        )(patchify(standardise(x, self.mean, self.std), self.patch_size))
        grid, own = self._positions(h // self.patch_size, w // self.patch_size)
        x = x + jnp.asarray(grid, x.dtype)[None]
        if keep is not None:
            x = jnp.take_along_axis(x, keep[..., None], axis=1)
        # One axis: like biases and scales, and as in timm, it is not decayed.
        cls = self.param("cls_token", nn.initializers.normal(1e-6), (self.width,), jnp.float32)
        cls = cls.astype(x.dtype) if own is None else cls.astype(x.dtype) + own.astype(x.dtype)
        cls = jnp.broadcast_to(cls, (n, 1, self.width))
        x = jnp.concatenate([cls, x], axis=1)
        for i in range(self.depth):
            x = Block(self.heads, self.mlp_ratio, self.dtype, name=f"blocks_{i}")(x)
        dtype = jnp.promote_types(self.dtype, jnp.float32)
        return nn.LayerNorm(epsilon=EPSILON, dtype=dtype, name="norm")(x)

    def _positions(self, rows: int, columns: int) -> tuple[jax.Array | np.ndarray, Any]:
        """What is added to the patches, [rows * columns, width], and to the class token, if any."""
        if self.positions == "sincos":
            return positions(rows, columns, self.width), None
        if self.positions != "learned":
            raise ValueError(f"positions {self.positions!r}: 'sincos' or 'learned'")
        shape = (1 + rows * columns, self.width)
        table = self.param("pos_embed", nn.initializers.normal(0.02), shape, jnp.float32)
        return table[1:], table[0]
