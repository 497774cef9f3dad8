"""The smallest encoders and a teacher with everything that a step or a method may use."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ssl_jax.methods.distillation import Teacher
from ssl_jax.models.dbn import DBN
from ssl_jax.models.norm import BatchNorm
from ssl_jax.models.vit import ViT


class Encoder(nn.Module):
    """Convolution, BatchNorm, dense layer: compiles in a fraction of a ResNet's time.

    There are no biases: before BatchNorm their gradient is only rounding.
    """

    bn_group: int = 0
    bn_views: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, train):
        x = nn.Conv(8, (3, 3), strides=2, use_bias=False, dtype=self.dtype)(x)
        x = nn.relu(BatchNorm(group=self.bn_group, views=self.bn_views, dtype=self.dtype)(x, train))
        return nn.Dense(8, use_bias=False, dtype=self.dtype)(x.mean((1, 2)))


def seen(views, size, channels=3, *, local=0, local_size=0):
    """The arrays of one image as a method sees them: `Run.seen`."""
    shapes = {"views": (views, size), "local_views": (local, local_size)}
    return {
        name: jax.ShapeDtypeStruct((count, side, side, channels), jnp.float32)
        for name, (count, side) in shapes.items()
        if count
    }


def encoder(model, dtype=jnp.float32):
    """Returns the smallest encoder of the family that the config's model belongs to."""
    if model.name.startswith("vit"):
        return ViT(patch_size=4, width=8, depth=1, heads=2, dtype=dtype)
    if model.name == "dbn":
        return DBN(widths=(12, 8), dtype=dtype)
    return Encoder(dtype=dtype)


def teacher(folder="", size=0, dtype=None):
    """Returns a teacher with three classes: the mean red, green and blue of an image."""
    del folder, size, dtype
    return Teacher({"scale": np.float32([4, 8, 16])}, _logits, ("a", "b", "c"))


def _logits(weights, images):
    return images.mean((1, 2)) * weights["scale"][None]
