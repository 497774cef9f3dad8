"""Tiles of a 3x3 grid, cut from images at random positions inside their cells."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from ssl_jax.methods import Run
from ssl_jax.methods._views import check_views
from ssl_jax.models.standard import MEAN, STD

SIDE = 3  # cells in a row of the grid
CELLS = SIDE**2


class Grid(NamedTuple):
    """Cells of an image, numbered row by row, with one square tile in each.

    The image is divided into cells of `cell` pixels. A tile moves by up to `jitter` pixels around
    the middle of its cell, so neighbouring tiles are at least cell - tile - jitter pixels apart.
    """

    cell: int
    tile: int
    jitter: int

    def corners(self, key: jax.Array) -> jax.Array:
        """Draws the top left corner (row, column) of the tile in every cell: int32 [9, 2]."""
        cells = jnp.stack(jnp.divmod(jnp.arange(CELLS), SIDE), axis=1) * self.cell
        shift = jax.random.randint(key, (CELLS, 2), 0, self.jitter + 1)
        return cells + (self.cell - self.tile - self.jitter) // 2 + shift

    def cut(self, image: jax.Array, corners: jax.Array) -> jax.Array:
        """Cuts an image [h, w, c] into the tiles with these corners [t, 2]: [t, tile, tile, c]."""
        shape = (self.tile, self.tile, image.shape[-1])
        return jax.vmap(lambda corner: lax.dynamic_slice(image, (*corner, 0), shape))(corners)


def make_grid(encoder: nn.Module, run: Run, tile_size: int, jitter: int) -> Grid:
    """Returns the grid of a run's views.

    Raises:
      ValueError: if the run does not have one view, the view is too small for the grid, or the
        encoder only takes images of one size.
    """
    check_views(run, 1)
    size = min(run.seen["views"].shape[1:3])
    if tile_size < 1 or jitter < 0 or tile_size + jitter > size // SIDE:
        raise ValueError(
            f"a grid of {SIDE}x{SIDE} cells on views of {size} pixels has cells of {size // SIDE} "
            f"pixels, which must hold a tile of {tile_size} pixels and its jitter of {jitter}: set "
            f"augment.size to {SIDE * (max(tile_size, 1) + max(jitter, 0))} or more, or "
            f"method.tile_size (1 or more) and method.jitter (0 or more) to at most {size // SIDE} "
            "together"
        )
    _check_sizes(encoder, tile_size, size, run.seen["views"].shape[-1])
    return Grid(size // SIDE, tile_size, jitter)


def _check_sizes(encoder: nn.Module, tile: int, size: int, channels: int) -> None:
    """Raises ValueError unless the encoder has the same parameters for tiles and whole images."""

    def shapes(side: int) -> list[tuple[int, ...]]:
        images = jnp.zeros((1, side, side, channels))
        variables = jax.eval_shape(lambda: encoder.init(jax.random.key(0), images, False))
        return [leaf.shape for leaf in jax.tree.leaves(variables)]

    if shapes(tile) != shapes(size):
        raise ValueError(
            f"this method trains the encoder on tiles of {tile} pixels and is evaluated on images "
            f"of {size}, but the parameters of this encoder fit one size only: choose a ResNet, or "
            "a ViT with model.positions='sincos'"
        )


def statistics(encoder: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns mean and standard deviation by which an encoder standardises images."""
    return getattr(encoder, "mean", MEAN), getattr(encoder, "std", STD)


def arrange(tiles: jax.Array) -> jax.Array:
    """Draws tiles [n, 9, s, s, c] as images of the grid, with white lines between the cells.

    Returns:
      [n, 3 (s + 2 m), 3 (s + 2 m), c] in [0, 1], with a margin of m pixels around every tile.
    """
    n, _, s, _, c = tiles.shape
    m = max(1, s // 32)
    x = jnp.pad(tiles, [(0, 0), (0, 0), (m, m), (m, m), (0, 0)], constant_values=1)
    x = x.reshape(n, SIDE, SIDE, s + 2 * m, s + 2 * m, c).swapaxes(2, 3)
    return x.reshape(n, SIDE * (s + 2 * m), SIDE * (s + 2 * m), c).clip(0, 1)
