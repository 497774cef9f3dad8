"""Saliency: the parts of a picture that its features depend on, measured without labels."""

import itertools
from collections.abc import Callable, Iterator

import numpy as np

GRID = 8  # cells per side
BATCH = 128  # pictures per call; one size, so that the encoder is compiled once


def occlusion(
    features: Callable[[np.ndarray], np.ndarray], pictures: np.ndarray, *, grid: int = GRID
) -> np.ndarray:
    """Measures occlusion sensitivity: 1 - cosine of the features with and without a part.

    The parts are the cells of a grid. Each is covered in turn by the picture's mean colour.
    Source: Zeiler and Fergus 2014 (arXiv 1311.2901), section 4, who slide a grey square and watch
    the score of a class.

    Args:
      features: float32 [BATCH, h, w, c], scaled as `pictures` -> [BATCH, f].
      pictures: float32 [q, h, w, c], as `Input.to_model` returns them.
      grid: cells per side; fewer if cells would be smaller than 2 pixels.

    Returns:
      float16 [q, grid, grid] in [0, 2]; 0 where the features do not change, even if they are zero.
    """
    grid = max(1, min(grid, min(pictures.shape[1:3]) // 2))
    variants = _covered(pictures, grid)
    outputs: list[np.ndarray] = []
    while batch := list(itertools.islice(variants, BATCH)):
        padded = np.pad(batch, ((0, BATCH - len(batch)), (0, 0), (0, 0), (0, 0)))
        outputs.append(np.asarray(features(padded), np.float64)[: len(batch)])
    rows = np.concatenate(outputs)
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)
    rows = rows.reshape(len(pictures), 1 + grid * grid, -1)
    # Half the squared distance of unit vectors is 1 - cosine, without its cancellation near 0.
    distance = ((rows[:, 1:] - rows[:, :1]) ** 2).sum(2) / 2
    return distance.reshape(len(pictures), grid, grid).astype(np.float16)


def _covered(pictures: np.ndarray, grid: int) -> Iterator[np.ndarray]:
    """Yields every picture, followed by its variants with one cell covered, row by row."""
    edges = [np.linspace(0, side, grid + 1).round().astype(int) for side in pictures.shape[1:3]]
    cells = list(itertools.product(*map(itertools.pairwise, edges)))
    for picture in pictures:
        yield picture
        for (top, bottom), (left, right) in cells:
            variant = picture.copy()
            variant[top:bottom, left:right] = picture.mean((0, 1))
            yield variant
