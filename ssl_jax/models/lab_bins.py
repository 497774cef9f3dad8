"""Bins of Lab's channels, for methods that predict colours or lightness as classes."""

import functools

import jax.numpy as jnp
import numpy as np
from jax import ensure_compile_time_eval
from scipy.spatial import ConvexHull

from ssl_jax.models.lab import to_lab

GRID = 10  # distance of neighbouring colour bins, in units of a and b
LARGEST = 110  # of |a| and |b| on the grid
LIGHTNESS_BINS = 100


@functools.cache
def colour_bins() -> np.ndarray:
    """Returns the centres (a, b) of the 313 colour bins, float64 [313, 2], sorted by a, then b.

    The centres are the points of the grid whose distance to the convex hull of all sRGB colours'
    (a, b) is below 10, where the distance is the larger of the differences in a and in b. These are
    the corners of all squares of the grid that the hull enters, and exactly the points of the file
    pts_in_hull.npy of richzhang/colorization.

    Source: Zhang, Isola and Efros (arXiv 1603.08511), section 2.1 and figure 3a.
    """
    with ensure_compile_time_eval():
        ab = np.asarray(to_lab(jnp.asarray(_edges_of_the_cube())), np.float64)[:, 1:]
    # Rows (n, offset): n·x + offset <= 0 inside.
    normal, offset = np.split(ConvexHull(ab).equations, [2], axis=1)
    axis = np.arange(-LARGEST, LARGEST + 1, GRID, dtype=np.float64)
    points = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    # Two convex sets overlap unless a line along an edge of one separates them: here the hull and
    # the square of side 2 GRID around a point.
    reach = GRID * np.abs(normal).sum(1, keepdims=True)
    meets_edges = (points @ normal.T + offset.T < reach.T).all(1)
    in_box = ((points > ab.min(0) - GRID) & (points < ab.max(0) + GRID)).all(1)
    return points[meets_edges & in_box]


@functools.cache
def lightness_bins() -> np.ndarray:
    """Returns the centres of 100 bins of L, each 1 wide: 0.5, 1.5 .. 99.5, float64 [100, 1]."""
    return np.arange(LIGHTNESS_BINS, dtype=np.float64)[:, None] + 0.5


def _edges_of_the_cube() -> np.ndarray:
    """Returns the colours on the twelve edges of the RGB cube, [n, 3]: the hull's corners."""
    edge = np.linspace(0, 1, 256)
    rows = []
    for channel in range(3):
        for corner in np.ndindex(2, 2):
            row = np.empty((len(edge), 3))
            row[:, channel] = edge
            row[:, [other for other in range(3) if other != channel]] = corner
            rows.append(row)
    return np.concatenate(rows)
