"""Residual networks that equal torchvision's and timm's to rounding, and SimCLR's variants of them.

Names follow torchvision (conv1, bn1, layer1_0/conv1, layer1_0/downsample_conv ...), the padding is
explicit and the stride sits on the 3x3: export is a renaming. Other paddings are for weights that
were trained under them. NHWC.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ssl_jax.models import PADDINGS, STEMS
from ssl_jax.models.conv import conv_general_dilated
from ssl_jax.models.norm import BatchNorm
from ssl_jax.models.standard import MEAN, STD, standardise

SK_MIN_CHANNELS = 32
Layer = Callable[..., Any]


def _conv(
    channels: int, kernel: int, stride: int = 1, *, same: bool, dtype: DTypeLike, name: str
) -> nn.Conv:
    """A convolution without bias, padded as torch pads or `same`, He-initialised over its outputs.

    They differ at stride 2 alone: SAME depends on the side, and pads below and right first.
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
    """Two 3x3 streams mixed by a softmax per channel, in place of a 3x3 convolution, norm, ReLU.

    Source: Li et al. (arXiv 1903.06586), section 3.1, both streams 3x3 as in SimCLR v2
    (arXiv 2006.10029), section 3 and released code.
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
    """What both residual blocks share: the fields and the shortcut."""

    channels: int
    stride: int
    sk_ratio: float
    conv: Layer
    norm: Layer
    last_norm: Layer
    expansion: ClassVar[int] = 1

    def shortcut(self, x: jax.Array, train: bool) -> jax.Array:
        """The identity where shapes allow; otherwise a 1x1 projection (ResNet-D's under SK)."""
        channels = self.expansion * self.channels
        if self.stride == 1 and x.shape[-1] == channels:
            return x
        stride = self.stride
        if self.sk_ratio:
            # SimCLR pads below and to the right; only at stride 1 the average leaves padding out.
            edge = ((0, 1), (0, 1))
            x = nn.avg_pool(x, (2, 2), (stride, stride), edge, count_include_pad=stride > 1)
            stride = 1
        x = self.conv(channels, 1, stride, name="downsample_conv")(x)
        return self.norm(name="downsample_bn")(x, train)


class BasicBlock(_Block):
    """Two 3x3 convolutions. Source: He et al. (arXiv 1512.03385), figure 5 left."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """[n, h, w, c] -> [n, h / stride, w / stride, channels]."""
        y = self.conv(self.channels, 3, self.stride, name="conv1")(x)
        y = nn.relu(self.norm(name="bn1")(y, train))
        y = self.conv(self.channels, 3, name="conv2")(y)
        y = self.last_norm(name="bn2")(y, train)
        return nn.relu(y + self.shortcut(x, train))


class Bottleneck(_Block):
    """1x1, 3x3 (with the stride), 1x1. Source: He et al. (arXiv 1512.03385), figure 5 right."""

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
    """Residual network without classifier: images to pooled features.

    Attributes:
      block: BasicBlock or Bottleneck.
      stage_sizes: blocks of each stage.
      width: multiplies every number of channels; the first stage has round(64 width).
      stem: "imagenet" (7x7 stride 2 and max pooling) or "cifar" (3x3 stride 1).
      sk_ratio: 0, or reduction of the selective kernels (SimCLR v2: 0.0625), which come with
        ResNet-D's stem and shortcut; bottlenecks only.
      bn_group: rows that share normalisation statistics; 0 = the global batch.
      bn_views: views that do not share normalisation statistics (`norm.BatchNorm`).
      zero_gamma: blocks start as the identity: the last normalisation's scale starts at 0.
      padding: "torch": symmetric; "simclr": that, but for SAME max pooling; "same": every
        convolution and the pooling SAME, as BYOL's.
      mean, std: of the images' channels; images are standardised by them first.
      dtype: of activations and convolutions; parameters are float32.

    Source: He et al. (arXiv 1512.03385), table 1, stride on the 3x3; width as SimCLR
    (arXiv 2002.05709), appendix B.9; paddings from google-research/simclr resnet.py and
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
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Images [n, h, w, 3] to features [n, f] float32, f = 8 round(64 width) (x 4: bottleneck).

        Raises:
          ValueError: on a width below one channel, an unknown stem or padding, a mean or std that
            is none, or selective kernels in basic blocks or under SAME.
        """
        base = round(64 * self.width)
        if base < 1 or self.stem not in STEMS:
            raise ValueError(f"width {self.width} or stem {self.stem!r}: 'imagenet' or 'cifar'")
        if self.sk_ratio and self.block is BasicBlock:
            raise ValueError(f"sk_ratio {self.sk_ratio}: selective kernels need resnet50 or deeper")
        if self.padding not in PADDINGS or (self.sk_ratio and self.padding == "same"):
            raise ValueError(f"padding {self.padding!r}: of {PADDINGS}, 'same' without sk_ratio")
        x = standardise(x, self.mean, self.std)
        conv = partial(_conv, same=self.padding == "same", dtype=self.dtype)
        norm = partial(BatchNorm, group=self.bn_group, views=self.bn_views, dtype=self.dtype)
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
        return x.mean((1, 2), dtype=jnp.float32)

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
