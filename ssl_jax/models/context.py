"""Contexts of a grid of patch encodings, and linear predictions of the encodings farther on."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

DIRECTIONS = ("down", "up", "right", "left")


def ahead(grid: Any, direction: str, step: int) -> tuple[Any, Any]:
    """Pairs positions with those `step` rows or columns further on in the direction of reading.

    Args:
      grid: [n, rows, columns, ...].
      direction: one of `DIRECTIONS`.
      step: at least 1.

    Returns:
      (the positions that have one ahead, the positions ahead), two slices of the grid of one shape.
    """
    horizontal, backward = direction in ("right", "left"), direction in ("up", "left")
    first, last = slice(None, -step), slice(step, None)
    if horizontal:
        start, end = grid[:, :, first], grid[:, :, last]
    else:
        start, end = grid[:, first], grid[:, last]
    return (end, start) if backward else (start, end)


class MaskedContext(nn.Module):
    """Aggregates a grid in one direction: row i of the result depends only on rows up to i.

    Residual blocks of 1x1, 1x3, 2x1 and 1x1 convolutions, here for "down". The 2x1 convolution sees
    a row and the row before it, so that no kernel needs a mask. In the other directions, kernels
    and padding are turned, not the grid.

    Attributes:
      direction: one of `DIRECTIONS`.
      width: channels inside a block.
      depth: number of blocks.
      dtype: dtype of activations; parameters are float32.

    Source: Hénaff et al. (arXiv 1905.09272), appendix, pseudo-code "pixelCNN".
    """

    direction: str = "down"
    width: int = 256
    depth: int = 5
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[n, rows, columns, f] -> [n, rows, columns, f]."""
        features = x.shape[-1]
        conv = partial(nn.Conv, dtype=self.dtype)
        before = (1, 0) if self.direction in ("down", "right") else (0, 1)
        across, along, padding = (1, 3), (2, 1), (before, (0, 0))
        if self.direction in ("right", "left"):
            across, along, padding = across[::-1], along[::-1], padding[::-1]
        for i in range(self.depth):
            y = nn.relu(conv(self.width, (1, 1), name=f"reduce{i}")(x))
            y = conv(self.width, across, name=f"across{i}")(y)
            y = nn.relu(conv(self.width, along, padding=padding, name=f"along{i}")(y))
            x = x + conv(features, (1, 1), name=f"expand{i}")(y)
        return nn.relu(x)


class GridPredictor(nn.Module):
    """Predicts patch encodings from contexts, for each direction of reading and each step.

    Attributes:
      directions: number of directions, the first ones of `DIRECTIONS`. Each has its own context
        network and its own linear maps.
      first_step: distance in rows from a context to the nearest row that it predicts.
      steps: largest number of rows that a context predicts, one linear map each.
      target_dim: width of predictions and targets. Targets are a linear map of the encodings, or
        the encodings themselves if 0.
      width: channels inside the blocks of the context networks.
      depth: number of blocks of each context network.
      dtype: dtype of activations; parameters are float32.

    Sources: van den Oord et al. (arXiv 1807.03748), sections 2.2 and 3.2; Hénaff et al.
    (arXiv 1905.09272), section 3 and appendix.
    """

    directions: int = 1
    first_step: int = 2
    steps: int = 5
    target_dim: int = 0
    width: int = 256
    depth: int = 5
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, z: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Encodings [n, g, g, f] -> (predictions [n, r, d], targets [n, g * g, d]).

        Prediction j of an image predicts target `positives(...)[j]` of the image.
        """
        n, side = z.shape[:2]
        dim = self.target_dim or z.shape[-1]
        z = z.astype(self.dtype)
        dense = partial(nn.Dense, dim, use_bias=False, dtype=self.dtype)
        predictions = []
        for direction in DIRECTIONS[: self.directions]:
            network = MaskedContext(direction, self.width, self.depth, self.dtype, name=direction)
            context = network(z)
            for step in predicted_steps(side, self.first_step, self.steps):
                start, _ = ahead(context, direction, step)
                rows = dense(name=f"{direction}_step{step}")(start)
                predictions.append(rows.reshape(n, -1, dim))
        targets = dense(name="target")(z) if self.target_dim else z
        return jnp.concatenate(predictions, axis=1), targets.reshape(n, side * side, dim)


def predicted_steps(side: int, first_step: int, steps: int) -> range:
    """Returns the distances, in rows, that some row of a grid of `side` rows predicts."""
    return range(first_step, min(first_step + steps, side))


def positives(side: int, directions: int, first_step: int, steps: int) -> np.ndarray:
    """Returns the index in a grid of side² patches of the target of each prediction: int32 [r]."""
    grid = np.arange(side * side, dtype=np.int32).reshape(1, side, side)
    return np.concatenate(
        [
            ahead(grid, direction, step)[1].reshape(-1)
            for direction in DIRECTIONS[:directions]
            for step in predicted_steps(side, first_step, steps)
        ]
    )
