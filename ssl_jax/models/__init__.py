"""Encoders by name.

Importing this package imports neither JAX nor Flax, so that a command can check a name quickly.
"""

import dataclasses
from typing import TYPE_CHECKING, Any

from ssl_jax import plugins

if TYPE_CHECKING:
    from ssl_jax.models.audio import AudioEncoder
    from ssl_jax.models.dbn import DBN
    from ssl_jax.models.embedding import Embedding
    from ssl_jax.models.resnet import ResNet
    from ssl_jax.models.sdae import SDAE
    from ssl_jax.models.split import SplitResNet
    from ssl_jax.models.vit import ViT

# For each name: the block, and the number of blocks in each stage.
RESNETS = {
    "resnet8": ("BasicBlock", (1, 1, 1)),
    "resnet10": ("BasicBlock", (1, 1, 1, 1)),
    "resnet18": ("BasicBlock", (2, 2, 2, 2)),
    "resnet34": ("BasicBlock", (3, 4, 6, 3)),
    "resnet50": ("Bottleneck", (3, 4, 6, 3)),
    "resnet101": ("Bottleneck", (3, 4, 23, 3)),
    "resnet101_stage3": ("Bottleneck", (3, 4, 23)),  # CPC, arXiv 1807.03748, section 3.2
    "resnet152": ("Bottleneck", (3, 8, 36, 3)),
    "resnet161": ("Bottleneck", (3, 4, 46)),  # CPC v2, arXiv 1905.09272, with width 2
    "resnet200": ("Bottleneck", (3, 24, 36, 3)),
}
# Two such ResNets, each of half the width, for two groups of channels.
SPLIT_RESNETS = {f"split_{name}": kind for name, kind in RESNETS.items()}

VITS = {
    "vit_micro": {"width": 64, "depth": 4, "heads": 4},  # for tests and for training on a CPU
    "vit_tiny": {"width": 192, "depth": 12, "heads": 3},
    "vit_small": {"width": 384, "depth": 12, "heads": 6},
    "vit_small_moco": {"width": 384, "depth": 12, "heads": 12},  # arXiv 2104.02057
    "vit_base": {"width": 768, "depth": 12, "heads": 12},
    "vit_large": {"width": 1024, "depth": 24, "heads": 16},
}


def names() -> list[str]:
    """Names of all encoders."""
    return [*RESNETS, *SPLIT_RESNETS, *VITS, "dbn", "embedding", "sdae", "audio_cnn_gru"]


def get(
    name: str, **options: Any
) -> "ResNet | SplitResNet | ViT | DBN | SDAE | AudioEncoder | Embedding":
    """Returns the encoder called `name`: a module (images [n, h, w, 3], train) -> [n, f] float32.

    Args:
      name: one of `names()`, or "module:Class" of another module, which is called with the options.
      **options: the attributes of the encoder class that the name leaves open.
        `resnet.ResNet`: width, stem, sk_ratio, bn_group, bn_views, zero_gamma, padding, colors,
        norm, patch, patch_stride, mean, std, pool, dtype. `split.SplitResNet`: also first and
        second. `vit.ViT`: patch_size, mlp_ratio, pool, positions, mean, std, dtype. `dbn.DBN`:
        widths, visible, sigma, dtype. `sdae.SDAE`: widths, kind, dtype. `audio.AudioEncoder`, which
        takes waveforms [n, t]: strides, kernels, channels, context, norm, dtype.
        `embedding.Embedding`, which takes words: width, dtype.

    Raises:
      ValueError: if the name is unknown.
      Fault: if the module of an external encoder is not allowed or cannot be imported.
      TypeError: if the encoder does not have one of the options.
    """
    if plugins.is_external(name):
        return plugins.load(name)(**options)
    family: Any
    fixed: dict[str, Any]
    if name in RESNETS:
        from ssl_jax.models import resnet

        block, stage_sizes = RESNETS[name]
        family, fixed = resnet.ResNet, {"block": getattr(resnet, block), "stage_sizes": stage_sizes}
    elif name in SPLIT_RESNETS:
        from ssl_jax.models import resnet, split

        block, stage_sizes = SPLIT_RESNETS[name]
        fixed = {"block": getattr(resnet, block), "stage_sizes": stage_sizes}
        family = split.SplitResNet
    elif name in VITS:
        from ssl_jax.models import vit

        family, fixed = vit.ViT, VITS[name]
    elif name == "embedding":
        from ssl_jax.models import embedding

        family, fixed = embedding.Embedding, {"words": 0}
    elif name == "dbn":
        from ssl_jax.models import dbn

        family, fixed = dbn.DBN, {}
    elif name == "sdae":
        from ssl_jax.models import sdae

        family, fixed = sdae.SDAE, {}
    elif name == "audio_cnn_gru":
        from ssl_jax.models import audio

        family, fixed = audio.AudioEncoder, {}
    else:
        raise ValueError(f"unknown encoder {name!r}; choose one of: {', '.join(names())}")
    # "parent" and "name" are Flax's own fields.
    fields = [field.name for field in dataclasses.fields(family)]
    known = [field for field in fields if field not in {*fixed, "parent", "name"}]
    if unknown := [option for option in options if option not in known]:
        raise TypeError(
            f"{name} has no option {', '.join(unknown)}; its options are {', '.join(known)}"
        )
    return family(**fixed, **options)
