"""The smallest encoders and a teacher with everything that a step or a method may use."""

import jax.numpy as jnp
import numpy as np

from ssl_jax.methods.distillation import Teacher
from ssl_jax.models.audio import AudioEncoder
from ssl_jax.models.dbn import DBN
from ssl_jax.models.embedding import Embedding
from ssl_jax.models.resnet import BasicBlock, ResNet
from ssl_jax.models.sdae import SDAE
from ssl_jax.models.split import SplitResNet
from ssl_jax.models.vit import ViT
from ssl_jax.testing import Encoder, seen

__all__ = ["Encoder", "encoder", "seen", "teacher"]


def encoder(model, dtype=jnp.float32):
    """Returns the smallest encoder of the family that the config's model belongs to."""
    if model.name.startswith("vit"):
        return ViT(patch_size=4, width=8, depth=1, heads=2, dtype=dtype)
    if getattr(model, "colors", "rgb") != "rgb":
        options = {"width": 1 / 8, "stem": "cifar", "zero_gamma": False, "dtype": dtype}
        family = SplitResNet if model.name.startswith("split") else ResNet
        return family(BasicBlock, (1,), colors=model.colors, **options)
    if model.name == "embedding":
        return Embedding(width=8, dtype=dtype)
    if model.name == "dbn":
        return DBN(widths=(12, 8), dtype=dtype)
    if model.name == "sdae":
        return SDAE(widths=(6, 4), kind=model.kind, dtype=dtype)
    if model.get("patch"):
        grid = {"patch": 4, "patch_stride": 2}
        return ResNet(BasicBlock, (1,), 1 / 8, "cifar", norm=model.norm, dtype=dtype, **grid)
    if model.name == "audio_cnn_gru":
        sizes = {"strides": (2, 2), "kernels": (4, 4), "channels": 6, "context": 5}
        return AudioEncoder(**sizes, norm=model.norm, dtype=dtype)
    return Encoder(dtype=dtype)


def teacher(folder="", size=0, dtype=None):
    """Returns a teacher with three classes: the mean red, green and blue of an image."""
    del folder, size, dtype
    return Teacher({"scale": np.float32([4, 8, 16])}, _logits, ("a", "b", "c"))


def _logits(weights, images):
    return images.mean((1, 2)) * weights["scale"][None]
