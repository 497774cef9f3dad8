"""Picture of a vision transformer's attention: where the class token of the last block looks."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ssl_jax.methods import Picture, Tree
from ssl_jax.models.vit import ViT

HEADS = 6  # largest number of heads that are shown
CAPTION = (
    "How much the class token attends to each patch in the last block of the teacher: mean of all "
    "heads, then single heads, each scaled to its largest value (arXiv 2104.14294, figure 1). "
    "Attention shows where the features come from, but not that the method has found objects."
)


def pictures(encoder: Any, teacher: Callable[[Tree], Tree]) -> tuple[Picture, ...]:
    """Returns the picture of a method whose teacher is `encoder`; () unless it is a ViT.

    Args:
      encoder: the encoder.
      teacher: function of the method's extra state that returns the teacher's parameters.
    """
    if not isinstance(encoder, ViT):
        return ()

    def attention(params: Tree, extra: Tree, images: jax.Array, key: jax.Array) -> jax.Array:
        del params, key
        return draw(encoder, teacher(extra), images)

    return (Picture("attention", "Attention", CAPTION, attention, columns(encoder)),)


def columns(encoder: ViT) -> tuple[str, ...]:
    """Returns the titles of the columns of `draw`."""
    heads = min(encoder.heads, HEADS)
    return ("image", "mean", *(f"head {i + 1}" for i in range(heads)))


def draw(encoder: ViT, params: Any, images: jax.Array) -> jax.Array:
    """Draws each image beside maps of the attention of the class token.

    Args:
      encoder: the vision transformer.
      params: its parameters.
      images: [n, h, w, c] in [0, 1].

    Returns:
      [n, 2 + heads, h, w, 3] in [0, 1]: the image, the mean of all heads, then at most `HEADS`
      heads.
    """
    _, state = encoder.apply({"params": params}, images, False, mutable=["attention"])
    last = state["attention"][f"blocks_{encoder.depth - 1}"]["attn"]["weights"][0]
    weights = last[:, :, 0, 1:].astype(jnp.float32)  # [n, heads, patches]
    maps = jnp.concatenate([weights.mean(1, keepdims=True), weights[:, :HEADS]], axis=1)
    maps /= maps.max(-1, keepdims=True)
    n, h, w, _ = images.shape
    rows, across = h // encoder.patch_size, w // encoder.patch_size
    maps = maps.reshape(n, -1, rows, across)
    for axis in (2, 3):
        maps = maps.repeat(encoder.patch_size, axis=axis)
    maps = jnp.broadcast_to(maps[..., None], (*maps.shape, 3))
    originals = images if images.shape[-1] == 3 else images[..., :1].repeat(3, axis=-1)
    return jnp.concatenate([originals[:, None], maps], axis=1)
