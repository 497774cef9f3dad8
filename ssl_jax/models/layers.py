"""Outputs of every block of an encoder, from the forward that computes its features."""

import re
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp

from ssl_jax.models.dbn import RBM
from ssl_jax.models.resnet import BasicBlock, Bottleneck
from ssl_jax.models.sdae import Layer
from ssl_jax.models.vit import Block

BLOCKS = (BasicBlock, Bottleneck, Block, RBM, Layer)
FEATURES = "features"


def outputs(encoder: Any, variables: Any, images: jax.Array) -> dict[str, jax.Array]:
    """Computes the pooled output of every block, and the features.

    Residual blocks and convolutional layers are averaged over space, and over the patches of an
    image. Transformer blocks are pooled like the encoder: the class token, or the mean of the patch
    tokens. Machines of a deep belief network and dense layers are returned unchanged. Only these
    pooled arrays leave the forward.

    Args:
      encoder: a linen module, (images, train) -> [n, f].
      variables: its parameters and statistics.
      images: [n, h, w, 3] in [0, 1].

    Returns:
      {block name: [n, f] float32}, and "features", the output of the encoder.
    """

    blocks, features = activations(encoder, variables, images)
    token = getattr(encoder, "pool", "token") == "token"
    pooled = {name: _pool(x, token) for name, x in blocks.items()}
    n = len(images)  # an encoder of patches has one row per patch, those of an image together
    pooled = {name: x.reshape(n, -1, x.shape[-1]).mean(1) for name, x in pooled.items()}
    return pooled | {FEATURES: jnp.asarray(features, jnp.float32)}


def activations(
    encoder: Any, variables: Any, images: jax.Array
) -> tuple[dict[str, jax.Array], jax.Array]:
    """Computes the output of every block, and the features.

    Args:
      encoder, variables, images: as in `outputs`.

    Returns:
      ({block name: [n, ...]}, features [n, f]); {} for an encoder without known blocks. The name of
      a block in one half of a split encoder is "first/NAME" or "second/NAME".
    """

    def is_block(module: nn.Module, method: str) -> bool:
        return isinstance(module, BLOCKS) and method == "__call__"

    features, state = encoder.apply(
        variables, images, False, capture_intermediates=is_block, mutable=["intermediates"]
    )
    captured = flax.traverse_util.flatten_dict(state.get("intermediates", {}))
    return {"/".join(path[:-1]): calls[0] for path, calls in captured.items()}, features


def order(names: list[str]) -> list[str]:
    """Sorts layer names in the order of the forward, "features" last."""

    def sort_key(name: str) -> tuple:
        return name == FEATURES, [int(number) for number in re.findall(r"\d+", name)]

    return sorted(names, key=sort_key)


def _pool(x: jax.Array, token: bool) -> jax.Array:
    if x.ndim == 4:
        x = x.mean((1, 2), dtype=jnp.float32)
    elif x.ndim == 3:
        x = x[:, 0] if token else x[:, 1:].mean(1, dtype=jnp.float32)
    return x.astype(jnp.float32)
