"""Residual networks equal to torchvision's and timm's up to rounding, and SimCLR's variants.

Names follow torchvision (conv1, bn1, layer1_0/conv1, layer1_0/downsample_conv ...), the padding is
explicit, and the stride is in the 3x3 convolution, so export is a renaming. Other paddings exist
for weights that were trained with them. The layout is NHWC.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ssl_jax.models.conv import conv_general_dilated
from ssl_jax.models.lab import standardised_channels
from ssl_jax.models.norm import BatchNorm, LayerNorm
from ssl_jax.models.options import NORMS, PADDINGS, STEMS
from ssl_jax.models.patches import check_patches, cut
from ssl_jax.models.standard import MEAN, STD

SK_MIN_CHANNELS = 32
Layer = Callable[..., Any]


def _conv(
    channels: int, kernel: int, stride: int = 1, *, same: bool, dtype: DTypeLike, name: str
) -> nn.Conv:
    """Convolution without bias, padded as in torch or with `same`, He-initialised by fan-out.

    The paddings differ only at stride 2, where SAME depends on the side and pads below and right
    first.
    """
    return nn.Conv(
        channels,
        (kernel, kernel),
        strides=stride,
        padding="SAME" if same else kernel // 2,
        use_bias=False,
        kernel_init=nn.initializers.variance_scaling(2.0, "fan_out", "normal"),
        dtype=dtype,
        conv_general_dilated=conv_general_dilated,
        name=name,
    )


class SelectiveKernel(nn.Module):
    """Two 3x3 streams mixed by a softmax per channel; replaces a 3x3 convolution, norm and ReLU.

    Attributes:
      channels: output channels, the channels of each stream.
      stride: stride of the 3x3 convolution.
      ratio: width of the gate's hidden layer relative to `channels`.
      conv: makes a convolution.
      norm: makes a normalisation.

    Source: Li et al. (arXiv 1903.06586), section 3.1. Both streams are 3x3, as in SimCLR v2
    (arXiv 2006.10029), section 3, and its code.
    """

    channels: int
    stride: int
    ratio: float
    conv: Layer
    norm: Layer

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """[n, h, w, c] -> [n, h / stride, w / stride, channels]."""
        x = self.conv(2 * self.channels, 3, self.stride, name="conv")(x)
        x = nn.relu(self.norm(name="bn")(x, train))
        streams = x.reshape(*x.shape[:-1], 2, self.channels)
        gate = streams.sum(3).mean((1, 2), keepdims=True, dtype=jnp.float32)
        reduced = max(int(self.channels * self.ratio), SK_MIN_CHANNELS)
        gate = self.conv(reduced, 1, name="reduce")(gate)
        gate = nn.relu(self.norm(name="reduce_bn")(gate, train))
        gate = self.conv(2 * self.channels, 1, name="expand")(gate)
        gate = nn.softmax(gate.reshape(x.shape[0], 1, 1, 2, self.channels), axis=3)
        return (streams * gate).sum(3)


class _Block(nn.Module):
    """Fields and shortcut that both residual blocks share."""

    channels: int
    stride: int
    sk_ratio: float
    conv: Layer
    norm: Layer
    last_norm: Layer
    expansion: ClassVar[int] = 1

    def shortcut(self, x: jax.Array, train: bool) -> jax.Array:
        """Identity if the shapes allow it, otherwise a 1x1 projection (with SK as in ResNet-D)."""
        channels = self.expansion * self.channels
        if self.stride == 1 and x.shape[-1] == channels:
            return x
        stride = self.stride
        if self.sk_ratio:
            # SimCLR pads below and to the right. The average excludes the padding only at stride 1.
            edge = ((0, 1), (0, 1))
            x = nn.avg_pool(x, (2, 2), (stride, stride), edge, count_include_pad=stride > 1)
            stride = 1
        x = self.conv(channels, 1, stride, name="downsample_conv")(x)
        return self.norm(name="downsample_bn")(x, train)


class BasicBlock(_Block):
    """Residual block of two 3x3 convolutions.

    Source: He et al. (arXiv 1512.03385), figure 5 left.
    """

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """[n, h, w, c] -> [n, h / stride, w / stride, channels]."""
        y = self.conv(self.channels, 3, self.stride, name="conv1")(x)
        y = nn.relu(self.norm(name="bn1")(y, train))
        y = self.conv(self.channels, 3, name="conv2")(y)
        y = self.last_norm(name="bn2")(y, train)
        return nn.relu(y + self.shortcut(x, train))


class Bottleneck(_Block):
    """Residual block of 1x1, 3x3 (with the stride) and 1x1 convolutions.

    Source: He et al. (arXiv 1512.03385), figure 5 right.
    """

    expansion: ClassVar[int] = 4

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """[n, h, w, c] -> [n, h / stride, w / stride, 4 channels]."""
        y = self.conv(self.channels, 1, name="conv1")(x)
        y = nn.relu(self.norm(name="bn1")(y, train))
        if self.sk_ratio:
            y = SelectiveKernel(
                self.channels, self.stride, self.sk_ratio, self.conv, self.norm, name="conv2"
            )(y, train)
        else:
            y = self.conv(self.channels, 3, self.stride, name="conv2")(y)
            y = nn.relu(self.norm(name="bn2")(y, train))
        y = self.conv(self.expansion * self.channels, 1, name="conv3")(y)
        y = self.last_norm(name="bn3")(y, train)
        return nn.relu(y + self.shortcut(x, train))


class ResNet(nn.Module):
    """Residual network without classifier: images to features.

    Attributes:
      block: BasicBlock or Bottleneck.
      stage_sizes: number of blocks in each stage.
      width: factor of every number of channels; the first stage has round(64 width).
      stem: "imagenet" (7x7 stride 2 and max pooling) or "cifar" (3x3 stride 1).
      sk_ratio: reduction ratio of the selective kernels (SimCLR v2: 0.0625), or 0 for none.
        Selective kernels come with ResNet-D's stem and shortcut and need bottlenecks.
      bn_group: rows that share normalisation statistics; 0 = the global batch.
      bn_views: views that do not share normalisation statistics (`norm.BatchNorm`).
      zero_gamma: initialise the last scale of every block with 0, so that blocks start as the
        identity.
      padding: "torch" (symmetric), "simclr" (symmetric, with SAME max pooling) or "same" (SAME for
        every convolution and the pooling, as in BYOL).
      colors: channels that the network sees: "rgb" (the images as they are, with any number of
        channels), "lightness" or "lab" of RGB images (`lab.seen_channels`).
      norm: "batch", "layer" (each row by itself) or "none" (only the learned scales and biases).
      patch: side of square patches in pixels, or 0. With patches, the network encodes every patch
        of an image by itself. The features are the mean over the patches.
      patch_stride: distance of neighbouring patches in pixels.
      mean: mean of the images' channels, which are standardised first. With colors "lightness" or
        "lab" it is 0, and std is 1, because the conversion centres and scales the channels.
      std: standard deviation of the images' channels.
      pool: "mean" averages the last activations over all positions; "none" keeps the positions, for
        methods that predict something at every place of an image. With patches, the positions are
        those of the patches.
      dtype: dtype of activations and convolutions; parameters are float32.

    Source: He et al. (arXiv 1512.03385), table 1, with the stride in the 3x3. Width: SimCLR
    (arXiv 2002.05709), appendix B.9. Paddings: google-research/simclr resnet.py and
    google-deepmind/deepmind-research byol/utils/networks.py.
    """

    block: type[_Block]
    stage_sizes: tuple[int, ...]
    width: float = 1.0
    stem: str = "imagenet"
    sk_ratio: float = 0.0
    bn_group: int = 0
    bn_views: int = 1
    zero_gamma: bool = True
    padding: str = "torch"
    colors: str = "rgb"
    norm: str = "batch"
    patch: int = 0
    patch_stride: int = 0
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD
    pool: str = "mean"
    dtype: DTypeLike = jnp.float32

    @property
    def grid(self) -> tuple[float, int]:
        """First pixel and step: cell i of the map of `pool="none"` belongs to pixel first + step i.

        With torch's padding, every stride keeps the even rows. The receptive field of cell i is
        therefore centred at row step i, for images of any size. The padding "same" moves the 3x3
        convolutions, but not the shortcuts, by less than a step, which the grid ignores.
        """
        if self.patch:
            return (self.patch - 1) / 2, self.patch_stride
        stem = 4 if self.stem == "imagenet" else 1
        return 0.0, stem * 2 ** (len(self.stage_sizes) - 1)

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Images [n, h, w, c] -> features [n, f], or [n, h', w', f] without pooling.

        The result is float32 or wider. With four stages, f = 8 round(64 width), and four times as
        many with bottlenecks.

        Raises:
          ValueError: if the width gives less than one channel, the stem or padding is unknown, mean
            or std is invalid, `colors` does not fit the images or is combined with a mean or std,
            or selective kernels are combined with basic blocks or SAME padding. Also if the norm is
            unknown, the images are smaller than a patch, or patches are combined with batch
            normalisation.
        """
        self._check()
        if not self.patch:
            return self._encode(x, train, self.pool)
        patches = cut(x, self.patch, self.patch_stride)
        n, rows, columns = patches.shape[:3]
        z = self._encode(patches.reshape(n * rows * columns, *patches.shape[3:]), train, "mean")
        z = z.reshape(n, rows, columns, z.shape[-1])
        return z.mean((1, 2)) if self.pool == "mean" else z

    def _check(self) -> None:
        if round(64 * self.width) < 1 or self.stem not in STEMS:
            raise ValueError(
                f"width must give at least one channel, got {self.width}; "
                f"stem must be 'imagenet' or 'cifar', got {self.stem!r}"
            )
        if self.sk_ratio and self.block is BasicBlock:
            raise ValueError(f"sk_ratio {self.sk_ratio}: selective kernels need resnet50 or deeper")
        if self.padding not in PADDINGS or (self.sk_ratio and self.padding == "same"):
            raise ValueError(
                f"padding must be one of {PADDINGS}, and not 'same' with sk_ratio; "
                f"got {self.padding!r}"
            )
        if self.norm not in NORMS:
            raise ValueError(f"norm must be one of {', '.join(NORMS)}, got {self.norm!r}")
        check_patches(self.patch, self.patch_stride, self.norm)

    def _encode(self, x: jax.Array, train: bool, pool: str) -> jax.Array:
        """Images or patches [n, h, w, c] -> [n, f], or [n, h', w', f] with pool "none"."""
        base = round(64 * self.width)
        x = standardised_channels(x, self.colors, self.mean, self.std)
        conv = partial(_conv, same=self.padding == "same", dtype=self.dtype)
        norm: Layer
        if self.norm == "batch":
            norm = partial(BatchNorm, group=self.bn_group, views=self.bn_views, dtype=self.dtype)
        else:
            norm = partial(LayerNorm, normalise=self.norm == "layer", dtype=self.dtype)
        scale = nn.initializers.zeros if self.zero_gamma else nn.initializers.ones
        x = self._stem(x.astype(self.dtype), base, conv, norm, train)
        for i, size in enumerate(self.stage_sizes):
            for j in range(size):
                x = self.block(
                    channels=base * 2**i,
                    stride=2 if i > 0 and j == 0 else 1,
                    sk_ratio=self.sk_ratio,
                    conv=conv,
                    norm=norm,
                    last_norm=partial(norm, scale_init=scale),
                    name=f"layer{i + 1}_{j}",
                )(x, train)
        wide_dtype = jnp.promote_types(self.dtype, jnp.float32)
        return x.mean((1, 2), dtype=wide_dtype) if pool == "mean" else x.astype(wide_dtype)

    def _stem(self, x: jax.Array, base: int, conv: Layer, norm: Layer, train: bool) -> jax.Array:
        if self.stem == "cifar":
            x = conv(base, 3, name="conv1")(x)
        elif self.sk_ratio:
            for i, stride in enumerate((2, 1)):
                x = conv(base // 2, 3, stride, name=f"conv1_{i}")(x)
                x = nn.relu(norm(name=f"bn1_{i}")(x, train))
            x = conv(base, 3, name="conv1_2")(x)
        else:
            x = conv(base, 7, 2, name="conv1")(x)
        x = nn.relu(norm(name="bn1")(x, train))
        if self.stem == "imagenet":
            edge = ((1, 1), (1, 1)) if self.padding == "torch" else "SAME"
            x = nn.max_pool(x, (3, 3), (2, 2), edge)
        return x
