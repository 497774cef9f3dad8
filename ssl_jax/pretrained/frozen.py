"""Loads networks that a method uses without training them."""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
from flax.errors import FlaxError

from ssl_jax.errors import BAD_CONFIG, Fault
from ssl_jax.methods._frozen import FrozenNetwork
from ssl_jax.models import layers
from ssl_jax.pretrained import backbone


def load_frozen(folder: str, image: tuple[int, int, int], dtype: Any) -> FrozenNetwork:
    """Loads the network whose features a method reconstructs.

    Args:
      folder: a path that `backbone.load` accepts.
      image: rows, columns and channels of the method's views.
      dtype: dtype of the network's activations.

    Raises:
      Fault: as `backbone.load`, or if the network does not take such images, has no
        blocks, or encodes patches.
    """
    net = backbone.load(pathlib.Path(folder).expanduser(), dtype=dtype)
    print(f"read weights from {net.origin or folder}", flush=True)

    def activations(weights: Any, images: jax.Array) -> list[jax.Array]:
        return list(layers.activations(net.encoder, weights, images)[0].values())

    try:
        shapes = jax.eval_shape(
            activations, net.variables, jax.ShapeDtypeStruct((1, *image), jnp.float32)
        )
    except (TypeError, ValueError, FlaxError) as error:
        words = f"{image[0]}x{image[1]} pixels and {image[2]} channels: {error}"
        message = f"method.features_from={folder}: the network does not take images of {words}"
        raise Fault(message, BAD_CONFIG) from error
    if any(len(block) != 1 for block in shapes):
        message = (
            f"method.features_from={folder}: the encoder cuts images into patches (model.patch)"
        )
        raise Fault(f"{message}. Choose an encoder of whole images", BAD_CONFIG)
    if not shapes:
        message = f"method.features_from={folder}: the encoder has no known blocks"
        raise Fault(f"{message}. Choose a ResNet, a ViT, or a stack of layers", BAD_CONFIG)
    return FrozenNetwork(net.variables, activations)
