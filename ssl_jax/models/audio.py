"""Encoder of waveforms: strided convolutions and a recurrent network (CPC's, arXiv 1807.03748)."""

import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ssl_jax.models.gru import GRU
from ssl_jax.models.options import FRAME_NORMS

Waveform = Any


class Sequences(NamedTuple):
    """Outputs of both parts of the encoder for every frame."""

    local: jax.Array  # [n, frames, channels], of the convolutions
    context: jax.Array  # [n, frames, context], of the recurrent network
    valid: jax.Array  # bool [n, frames]; False for frames with padding


class AudioEncoder(nn.Module):
    """Raw waveforms [n, t] -> features [n, context], the mean of the contexts over the frames.

    Each convolution is padded by zeros before its start, by kernel - stride. A frame therefore
    covers the samples of its own stretch of `stride` samples and earlier ones, and no later sample:
    t samples make t // stride frames, and neither contexts nor features depend on what follows the
    end of a recording. The paper states no padding, but 128 frames for 20480 samples.

    Attributes:
      strides: of the convolutions; their product is the distance of frames in samples.
      kernels: of the convolutions.
      channels: of every convolution.
      context: width of the recurrent network.
      norm: "none", as the paper, or "channel": layer normalisation of every frame over its
        channels, before ReLU.
      dtype: dtype of activations.

    Source: van den Oord et al. (arXiv 1807.03748), section 3.1. Channel normalisation: Rivière et
    al. (arXiv 2002.02848), section 3.
    """

    strides: tuple[int, ...] = (5, 4, 2, 2, 2)
    kernels: tuple[int, ...] = (10, 8, 4, 4, 4)
    channels: int = 512
    context: int = 256
    norm: str = "none"
    dtype: DTypeLike = jnp.float32

    @property
    def stride(self) -> int:
        """Distance of frames, in samples."""
        return math.prod(self.strides)

    @nn.compact
    def sequences(self, x: Waveform) -> Sequences:
        """Computes the outputs of every frame.

        Args:
          x: float [n, t], or {"waveform": float [n, t], "samples": int [n]}, where samples from
            `samples` on are padding. At least the first frame counts as valid.

        Raises:
          ValueError: strides and kernels do not fit, the norm is unknown, or a waveform is shorter
            than a frame.
        """
        self._check(x)
        waveform, samples = (x["waveform"], x["samples"]) if isinstance(x, dict) else (x, None)
        z = waveform[..., None].astype(self.dtype)
        for i, (kernel, stride) in enumerate(zip(self.kernels, self.strides, strict=True)):
            z = nn.Conv(
                self.channels, (kernel,), strides=stride, padding=[(kernel - stride, 0)],
                dtype=self.dtype, name=f"conv{i}",
            )(z)  # fmt: skip
            if self.norm == "channel":
                z = nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name=f"norm{i}")(z)
            z = nn.relu(z)
        context = GRU(self.context, dtype=self.dtype, name="context")(z)
        place = jnp.arange(z.shape[1], dtype=jnp.int32)[None]
        if samples is None:
            valid = jnp.ones(z.shape[:2], bool)
        else:
            valid = place < jnp.maximum(samples // self.stride, 1)[:, None]
        return Sequences(z, context, valid)

    def __call__(self, x: Waveform, train: bool) -> jax.Array:
        """Returns the features, [n, context]."""
        del train
        return mean_of_valid(*self.sequences(x)[1:])

    def frames(self, x: Waveform) -> tuple[jax.Array, jax.Array]:
        """Returns (contexts float32 [n, frames, context], valid bool [n, frames])."""
        _, context, valid = self.sequences(x)
        return context.astype(jnp.promote_types(context.dtype, jnp.float32)), valid

    def _check(self, x: Waveform) -> None:
        pairs = list(zip(self.kernels, self.strides, strict=False))
        if len(self.kernels) != len(self.strides) or any(k < s or s < 1 for k, s in pairs):
            raise ValueError(
                f"model.kernels={tuple(self.kernels)}, model.strides={tuple(self.strides)}: give "
                "as many kernels as strides, each kernel at least as long as its stride"
            )
        if self.norm not in FRAME_NORMS:
            raise ValueError(f"model.norm={self.norm!r}: choose one of {', '.join(FRAME_NORMS)}")
        shape = (x["waveform"] if isinstance(x, dict) else x).shape
        if len(shape) != 2 or shape[1] < self.stride:
            raise ValueError(
                f"waveforms of shape {shape}: the encoder takes [n, t] with at least the "
                f"{self.stride} samples of a frame. Raise augment.window, or augment.max_seconds"
            )


class StepPredictor(nn.Module):
    """One linear map W_k without bias for each step: contexts [..., c] -> [..., steps, width].

    Attributes:
      steps: number of steps.
      width: channels of the predicted frames.
      dtype: dtype of the products.

    Source: van den Oord et al. (arXiv 1807.03748), equation 3.
    """

    steps: int
    width: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, context: jax.Array) -> jax.Array:
        """Returns the predictions of all steps."""
        initial = nn.initializers.lecun_normal(batch_axis=(0,))
        kernel = self.param("kernel", initial, (self.steps, context.shape[-1], self.width))
        x, kernel = nn.dtypes.promote_dtype(context, kernel, dtype=self.dtype)
        return jnp.einsum("...c,kcd->...kd", x, kernel)


def mean_of_valid(x: jax.Array, valid: jax.Array) -> jax.Array:
    """Returns the mean [n, f] over the valid frames of x [n, frames, f]; at least one is valid."""
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    weight = valid[..., None].astype(wide.dtype)
    return ((wide * weight).sum(1) / weight.sum(1)).astype(x.dtype)
