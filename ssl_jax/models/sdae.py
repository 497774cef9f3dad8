"""Encoder of a stacked autoencoder, and the functions that code and decode one layer.

A layer's weights are a dict: "kernel" and "bias" [f]. The kernel is [d, f] in a dense layer and
[5, 5, c, f] in a convolutional one. All codes are probabilities of sigmoid units, so every layer
has inputs in [0, 1].

Sources: Vincent et al. (JMLR 11, 2010, "Stacked denoising autoencoders"), sections 2.2 and 3.5.
Convolutional: Masci et al. (ICANN 2011, "Stacked convolutional auto-encoders for hierarchical
feature extraction"), sections 3 and 4.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ssl_jax.models.conv import conv_general_dilated
from ssl_jax.models.options import KINDS

Weights = dict[str, jax.Array]
SIDE = 5  # of a convolution, in pixels
# Glorot and Bengio (AISTATS 2010): uniform, four times as wide for sigmoid units as for tanh.
kernel_init = nn.initializers.variance_scaling(16.0, "fan_avg", "uniform")


class Layer(nn.Module):
    """Weights of one layer of the encoder; computes its code.

    Attributes:
      width: number of units, or of channels, f.
      kind: "dense" or "convolutional".
      dtype: dtype of the product with the kernel; parameters are float32.
    """

    width: int
    kind: str
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Input [n, d] or [n, h, w, c] -> code [n, f] or [n, h / 2, w / 2, f]."""
        area = (SIDE, SIDE) if self.kind == "convolutional" else ()
        shape = (*area, x.shape[-1], self.width)
        weights = {
            "kernel": self.param("kernel", kernel_init, shape, jnp.float32),
            "bias": self.param("bias", nn.initializers.zeros, (self.width,), jnp.float32),
        }
        return encode(weights, x, self.dtype)


class SDAE(nn.Module):
    """Encoder of a stacked denoising autoencoder: the code of one layer is the input of the next.

    Attributes:
      widths: number of units or channels of each layer, the lowest first.
      kind: "dense" layers see the flat image. "convolutional" layers have 5x5 filters, followed by
        max pooling that halves the sides.
      dtype: dtype of the products with kernels; parameters are float32.
    """

    widths: tuple[int, ...] = (1024, 1024)
    kind: str = "dense"
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Images [n, h, w, c] in [0, 1] -> the code of the top layer, flat [n, f].

        The positions of a convolutional code are kept: a decoder needs them to place what it draws.

        Raises:
          ValueError: if the kind is unknown or `widths` is empty.
        """
        del train
        if self.kind not in KINDS or not self.widths:
            raise ValueError(
                f"SDAE with widths {self.widths} and kind {self.kind!r}: widths must not be empty "
                f"and kind must be one of {KINDS}"
            )
        x = layer_input(images, self.kind)
        for i, width in enumerate(self.widths):
            x = Layer(width, self.kind, self.dtype, name=f"layer{i}")(x)
        return x.reshape(len(x), -1)


def layer_input(images: jax.Array, kind: str) -> jax.Array:
    """Returns images [n, h, w, c] as input of the first layer: flat [n, d] for a dense layer."""
    return images.reshape(len(images), -1) if kind == "dense" else images


def encode(weights: Weights, x: jax.Array, dtype: DTypeLike) -> jax.Array:
    """Computes the code of one layer.

    Args:
      weights: "kernel" and "bias"; the kernel's axes decide the kind of the layer.
      x: [n, d], or [n, h, w, c] for a convolutional layer.
      dtype: dtype of the product with the kernel.

    Returns:
      Code in [0, 1], in float32 or wider: [n, f], or [n, ceil(h / 2), ceil(w / 2), f].
    """
    x = _product(x, weights["kernel"], dtype)
    if x.ndim == 4:  # the sigmoid is monotonic, so it may follow the maximum
        x = nn.max_pool(x, (2, 2), (2, 2), "SAME")
    return nn.sigmoid(x + _bias(weights, x))


def decode(
    weights: Weights, code: jax.Array, shape: tuple[int, ...], dtype: DTypeLike
) -> jax.Array:
    """Reconstructs the input of one layer, as logits or as the values themselves.

    The kernel has the layout of the encoder's. It is transposed, or mirrored with its channels
    exchanged, after every position of a convolutional code is repeated twice down and across.

    Args:
      weights: "kernel" of the encoder, or of its shape; "bias" [d] or [c].
      code: [n, f] or [n, h', w', f].
      shape: shape of the input of the layer, [n, d] or [n, h, w, c]; n may differ.
      dtype: dtype of the product with the kernel.

    Returns:
      Affine output of the input's shape, in float32 or wider.
    """
    kernel = weights["kernel"]
    if kernel.ndim == 4:
        kernel = kernel[::-1, ::-1].swapaxes(2, 3)
        code = code.repeat(2, axis=1).repeat(2, axis=2)[:, : shape[1], : shape[2]]
    else:
        kernel = kernel.T
    x = _product(code, kernel, dtype)
    return x + _bias(weights, x)


def _bias(weights: Weights, x: jax.Array) -> jax.Array:
    return weights["bias"].reshape((1,) * (x.ndim - 1) + (-1,))


def _product(x: jax.Array, kernel: jax.Array, dtype: DTypeLike) -> jax.Array:
    wide_dtype = jnp.promote_types(dtype, jnp.float32)
    x, kernel = x.astype(dtype), kernel.astype(dtype)
    if kernel.ndim == 4:
        return conv_general_dilated(x, kernel, (1, 1), "SAME").astype(wide_dtype)
    return jnp.matmul(x, kernel, preferred_element_type=wide_dtype)
