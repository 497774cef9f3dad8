"""Encoder weights in the file formats and naming schemes of other projects.

`files` reads files, the modules beside it map names. No module executes code from a file, and
every reader validates a file before it uses the contents.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

Tree = Any
Arrays = dict[str, np.ndarray]


class Weights(NamedTuple):
    """An encoder's weights and the arguments that build the encoder."""

    model: dict[str, Any]
    """Arguments of `ssl_jax.models.get` except dtype: {"name": "resnet50", "width": 1.0, ...}."""

    params: Tree
    """Parameters of the encoder, float32 NumPy arrays."""

    batch_stats: Tree
    """BatchNorm statistics of the encoder, float32 NumPy arrays; {} without BatchNorm."""

    others: dict[str, Tree] = {}  # noqa: RUF012  (the default of a NamedTuple is never changed)
    """Modules behind the encoder by name, each {"params": tree, "batch_stats": tree}. The name of
    a linear classifier is "classifier"; its params are {"dense": {"kernel" [f, k], "bias" [k]}}."""


# First layers that read the image: of ResNets by stem, of ViTs, and of convolutional autoencoders.
# Kernels are [h, w, c, f].
FIRST_KERNELS = ("conv1/kernel", "conv1_0/kernel", "patch_embed/kernel", "layer0/kernel")


def input_channels(model: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Returns the number of channels of an encoder's images.

    Args:
      model: arguments of `ssl_jax.models.get`.
      shapes: shapes of the parameters by path, such as "conv1/kernel".

    Returns:
      3 for an encoder that converts RGB images to Lab, or without a known first kernel.
    """
    if model.get("colors", "rgb") != "rgb":
        return 3
    # The halves of a split ResNet see different channels.
    for name in FIRST_KERNELS:
        kernels = [shapes.get(f"{half}{name}", ()) for half in ("", "first/", "second/")]
        if found := [shape[2] for shape in kernels if len(shape) == 4]:
            return sum(found)
    return 3


def shapes(tree: Tree) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every leaf by its path: {"layer1_0/conv1/kernel": shape, ...}."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(k, simple=True, separator="/"): x.shape for k, x in leaves}
