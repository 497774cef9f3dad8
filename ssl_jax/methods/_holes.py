"""Holes that context encoders fill: a square in the centre, random blocks, or free forms."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_jax.methods._keys import example_keys

Draw = Callable[[jax.Array, jax.Array], jax.Array]
KINDS = ("center", "blocks", "free_form")
# The authors accept free forms of 20 % to 30 % of the image: a quarter, 20 % more or less.
SPREAD = 0.2


def make(kind: str, size: int, *, area: float, overlap: int, blocks: int, cells: int) -> Draw:
    """Returns (key, index int32 [b]) -> holes bool [b, size, size, 1], True where hidden.

    The hole of an example depends only on the key and on its index. It is one of:

    "center": the middle of the image. Its square has this area; the outer `overlap` pixels of the
      square stay visible.
    "blocks": squares of equal size at random places, which may overlap each other. Together they
      have at most this area.
    "free_form": blobs of any shape with this area, 20 % more or less: the places where a smooth
      random surface is low. The area, which is uniform, sets the threshold.

    Args:
      kind: "center", "blocks" or "free_form".
      size: side of the images in pixels.
      area: fraction of the image.
      overlap: pixels of the square that stay visible at each side; for "center" only.
      blocks: number of squares; for "blocks" only.
      cells: random numbers along a side of the image, from which a surface is interpolated; for
        "free_form" only.

    Raises:
      ValueError: if the kind is unknown, the area is not in (0, 1), no pixel would be hidden, or
        there are more cells than pixels.

    Source: Pathak et al. (arXiv 1604.07379), section 3.3, and pathak22/context-encoder train.lua
    and train_random.lua. That code draws one free form for all images of a batch. It has a fixed
    threshold, and repeats the draw until the area fits.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown mask {kind!r}; choose one of: {', '.join(KINDS)}")
    if not 0 < area < 1:
        raise ValueError(f"method.hole_area must be a fraction of the image in (0, 1), got {area}")
    if kind == "center":
        side = square_side(size, area)
        if 2 * overlap >= side:
            raise ValueError(
                f"an overlap of {overlap} pixels at each side leaves nothing hidden of a hole of "
                f"{side} x {side} pixels: reduce method.overlap or raise method.hole_area"
            )
        return _center(size, side - 2 * overlap)
    if kind == "blocks":
        side = int(size * (area / blocks) ** 0.5) if blocks > 0 else 0
        if side < 1:
            raise ValueError(
                f"{blocks} blocks cannot share a hole_area of {area:g} of an image of {size} x "
                f"{size} pixels with a pixel or more for each: change method.blocks"
            )
        return _blocks(size, side, blocks)
    if not 1 < cells <= size or area * (1 + SPREAD) >= 1 or area * (1 - SPREAD) * size**2 < 1:
        raise ValueError(
            f"free forms need 2 to {size} cells, one for each pixel, and a hole_area below "
            f"{1 / (1 + SPREAD):.2f} that hides a pixel; got {cells} cells and area {area}"
        )
    return _free_form(size, area, cells)


def square_side(size: int, area: float) -> int:
    """Returns the side in pixels of the central square with this fraction of the image."""
    return round(size * area**0.5)


def border(hole: jax.Array, width: int) -> jax.Array:
    """Returns the visible pixels bool [b, h, w, 1] within `width` pixels of a hole, diagonals too.

    Args:
      hole: bool [b, h, w, 1].
      width: in pixels; 0 returns no pixel.
    """
    window = (2 * width + 1, 2 * width + 1)
    return (nn.max_pool(hole.astype(jnp.float32), window, padding="SAME") > 0) & ~hole


def _center(size: int, side: int) -> Draw:
    first = (size - side) // 2
    inside = jnp.arange(size)
    inside = (inside >= first) & (inside < first + side)
    hole = (inside[:, None] & inside[None, :])[None, :, :, None]
    return lambda key, index: jnp.tile(hole, (len(index), 1, 1, 1))


def _blocks(size: int, side: int, count: int) -> Draw:
    def draw(key: jax.Array, index: jax.Array) -> jax.Array:
        keys = example_keys(key, index)
        last = size - side + 1
        corner = jax.vmap(lambda k: jax.random.randint(k, (count, 2), 0, last))(keys)
        distance = jnp.arange(size)[None, None, None] - corner[..., None]
        down, across = jnp.moveaxis((distance >= 0) & (distance < side), 2, 0)
        return (down[..., :, None] & across[..., None, :]).any(1)[..., None]

    return draw


def _free_form(size: int, area: float, cells: int) -> Draw:
    def draw(key: jax.Array, index: jax.Array) -> jax.Array:
        keys = example_keys(key, index)
        noise = jax.vmap(lambda k: jax.random.uniform(k, (cells**2 + 1,)))(keys)
        surface = noise[:, 1:].reshape(-1, cells, cells)
        surface = jax.image.resize(surface, (len(index), size, size), "bicubic")
        share = area * (1 - SPREAD + 2 * SPREAD * noise[:, 0])
        hidden = jnp.round(share * size**2).astype(jnp.int32)
        heights = jnp.sort(surface.reshape(len(index), -1), axis=1)
        threshold = jnp.take_along_axis(heights, hidden[:, None], axis=1)
        return (surface < threshold[:, :, None])[..., None]

    return draw
