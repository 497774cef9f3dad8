"""Encoder of two ResNets, each of which sees some of the channels."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ssl_jax.models.lab import standardised_channels
from ssl_jax.models.resnet import ResNet


class SplitResNet(ResNet):
    """Two ResNets of half the width whose features are concatenated, those of `first` before.

    The channels of both groups together are all channels, after the conversion by `colors` or, with
    colors "rgb", the standardisation by `mean` and `std`. A feature of one half does not depend on
    the channels of the other.

    Attributes:
      first: numbers of the channels that the first half sees.
      second: numbers of the channels that the second half sees.

    With colors "lab", the default groups show L to the first half, and a and b to the second.

    Source: Zhang, Isola and Efros (arXiv 1611.09842), sections 3.2 and 4.1.
    """

    first: tuple[int, ...] = (0,)
    second: tuple[int, ...] = (1, 2)

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Images [n, h, w, c] -> features [n, f], or [n, h', w', f] without pooling.

        Raises:
          ValueError: as `ResNet`, or if the groups do not divide the channels.
        """
        x = standardised_channels(x, self.colors, self.mean, self.std)
        check_split(self.first, self.second, x.shape[-1])
        own = ("parent", "name", "first", "second", "width", "colors", "mean", "std")
        shared = {k: getattr(self, k) for k in self.__dataclass_fields__ if k not in own}
        features = []
        for name in ("first", "second"):
            half = ResNet(width=self.width / 2, name=name, **shared)
            features.append(half(x[..., np.array(getattr(self, name))], train))
        return jnp.concatenate(features, axis=-1)


def check_split(first: tuple[int, ...], second: tuple[int, ...], channels: int) -> None:
    """Checks that two groups divide channels 0 .. channels - 1.

    Raises:
      ValueError: if a group is empty, or a channel is in no group, in two groups, or unknown.
    """
    if channels < 2:
        raise ValueError(
            "images of one channel cannot be divided into two groups: set data.channels to 3 or 4, "
            "or choose another method"
        )
    if not first or not second or sorted((*first, *second)) != list(range(channels)):
        left_out = sorted({*range(channels)} - {*first, *second})
        advice = f"; channel {left_out[0]} is in none" if left_out else ""
        raise ValueError(
            f"each of the {channels} channels 0 to {channels - 1} must be in exactly one of two "
            f"groups; got model.first {tuple(first)} and model.second {tuple(second)}{advice}. Set "
            "them so that they divide the channels"
        )
