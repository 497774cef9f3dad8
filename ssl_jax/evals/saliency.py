"""Which parts of an image its features depend on, without labels."""

import itertools
from collections.abc import Callable, Iterator

import numpy as np

GRID = 8
BATCH = 128  # images; always so many, so that a compiled encoder is compiled once


def occlusion(
    features: Callable[[np.ndarray], np.ndarray], images: np.ndarray, *, grid: int = GRID
) -> np.ndarray:
    """Occlusion sensitivity: 1 - cosine of the features with and without a part of the image.

    The parts are the cells of a grid, covered one at a time by the image's mean colour (Zeiler and
    Fergus 2014, arXiv 1311.2901, section 4, who slide a grey square and watch a class).

    Args:
      features: float32 [BATCH, h, w, 3] in [0, 1] -> [BATCH, f].
      images: uint8 [q, h, w, 3].
      grid: cells a side, fewer where they would be smaller than 2 pixels.

    Returns:
      float16 [q, grid, grid] in [0, 2]; 0 where the features stay, be they zero.
    """
    grid = max(1, min(grid, min(images.shape[1:3]) // 2))
    variants = _covered(images.astype(np.float32) / 255, grid)
    found: list[np.ndarray] = []
    while batch := list(itertools.islice(variants, BATCH)):
        padded = np.pad(batch, ((0, BATCH - len(batch)), (0, 0), (0, 0), (0, 0)))
        found.append(np.asarray(features(padded), np.float64)[: len(batch)])
    rows = np.concatenate(found)
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)
    rows = rows.reshape(len(images), 1 + grid * grid, -1)
    # Half the squared distance of unit vectors is 1 - cosine, without its cancellation near 0.
    turned = ((rows[:, 1:] - rows[:, :1]) ** 2).sum(2) / 2
    return turned.reshape(len(images), grid, grid).astype(np.float16)


def _covered(images: np.ndarray, grid: int) -> Iterator[np.ndarray]:
    """Every image, then the same without each part, row by row."""
    edges = [np.linspace(0, side, grid + 1).round().astype(int) for side in images.shape[1:3]]
    cells = list(itertools.product(*map(itertools.pairwise, edges)))
    for image in images:
        yield image
        for (top, bottom), (left, right) in cells:
            variant = image.copy()
            variant[top:bottom, left:right] = image.mean((0, 1))
            yield variant
