"""Contexts of a grid of patch encodings, and linear predictions of the encodings farther on."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

DIRECTIONS = ("down", "up", "right", "left")


def turn(grid: Any, direction: str) -> Any:
    """Mirrors and transposes grids [n, g, g, f] so that the direction of reading becomes "down"."""
    if direction in ("right", "left"):
        grid = grid.swapaxes(1, 2)
    return grid[:, ::-1] if direction in ("up", "left") else grid


class MaskedContext(nn.Module):
    """Aggregates a grid from the top: row i of the result depends only on rows up to i.

    Residual blocks of 1x1, 1x3, 2x1 and 1x1 convolutions. The 2x1 convolution sees a row and the
    row above it, so that the masks need no zeros in the kernels.

    Attributes:
      width: channels inside a block.
      depth: number of blocks.
      dtype: dtype of activations; parameters are float32.

    Source: Hénaff et al. (arXiv 1905.09272), appendix, pseudo-code "pixelCNN".
    """

    width: int = 256
    depth: int = 5
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[n, rows, columns, f] -> [n, rows, columns, f]."""
        features = x.shape[-1]
        conv = partial(nn.Conv, dtype=self.dtype)
        for i in range(self.depth):
            y = nn.relu(conv(self.width, (1, 1), name=f"reduce{i}")(x))
            y = conv(self.width, (1, 3), name=f"across{i}")(y)
            above = ((1, 0), (0, 0))
            y = nn.relu(conv(self.width, (2, 1), padding=above, name=f"down{i}")(y))
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
            network = MaskedContext(self.width, self.depth, self.dtype, name=direction)
            context = network(turn(z, direction))
            for step in predicted_steps(side, self.first_step, self.steps):
                rows = dense(name=f"{direction}_step{step}")(context[:, : side - step])
                predictions.append(rows.reshape(n, -1, dim))
        targets = dense(name="target")(z) if self.target_dim else z
        return jnp.concatenate(predictions, axis=1), targets.reshape(n, side * side, dim)


def predicted_steps(side: int, first_step: int, steps: int) -> range:
    """Returns the distances, in rows, that some row of a grid of `side` rows predicts."""
    return range(first_step, min(first_step + steps, side))


def positives(side: int, directions: int, first_step: int, steps: int) -> np.ndarray:
    """Returns the index in a grid of side² patches of the target of each prediction: int32 [r]."""
    grid = np.arange(side * side, dtype=np.int32).reshape(1, side, side, 1)
    return np.concatenate(
        [
            turn(grid, direction)[0, step:].reshape(-1)
            for direction in DIRECTIONS[:directions]
            for step in predicted_steps(side, first_step, steps)
        ]
    )
