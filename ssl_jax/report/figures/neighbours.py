"""Figure of nearest neighbours: queries beside the examples whose features are most similar."""

import math
import os

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from ssl_jax.report.figures.image_grids import show_image
from ssl_jax.report.figures.style import BLUE, INK, ORANGE, RULE, STYLE, label, save
from ssl_jax.report.run_files import class_name

MIN_POINTS = 10  # examples that neighbours or a map of the features need


def nearest(features: np.ndarray, count: int) -> np.ndarray:
    """Finds the nearest other rows in cosine similarity: [n, f] -> int [n, count]."""
    rows = unit_rows(features)
    similarity = rows @ rows.T
    np.fill_diagonal(similarity, -np.inf)
    return np.argsort(-similarity, axis=1, kind="stable")[:, :count]


def precision(features: np.ndarray, labels: np.ndarray, count: int = 6) -> float | None:
    """Computes the fraction of nearest neighbours that share the query's class.

    Args:
      features: float [n, f].
      labels: int [n], negative without a label.
      count: number of neighbours per query.

    Returns:
      None if there are fewer than `MIN_POINTS` examples or no labels.
    """
    if len(features) < MIN_POINTS:
        return None
    same = labels[nearest(features, count)] == labels[:, None]
    return float(same[labels >= 0].mean()) if (labels >= 0).any() else None


def draw(
    pictures: np.ndarray,
    features: np.ndarray,
    labels: np.ndarray,
    classes: list[str],
    path: str | os.PathLike[str],
    *,
    count: int = 6,
) -> bool:
    """Draws queries and their nearest neighbours, each in a frame coloured by its class.

    A neighbour's frame is blue if it has the query's class, orange if not, grey without labels.
    The first queries are one example of each class.

    Args:
      pictures: uint8 RGB [n, h, w, 3], one picture per example.
      features: float [n, f].
      labels: int [n], negative without a label.
      classes: class names.
      path: PNG file to write.
      count: number of neighbours per query.

    Returns:
      False without a file if there are fewer than `MIN_POINTS` examples.
    """
    if len(features) < MIN_POINTS:
        return False
    queries, neighbours = _choose_queries(labels, 10), nearest(features, count)
    lines = math.ceil(len(queries) / 2)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11.8, 0.93 * lines + 0.28))
        widths = [1, 0.14, *[1] * count, 0.45, 1, 0.14, *[1] * count]
        grid = figure.add_gridspec(
            lines, len(widths), width_ratios=widths, wspace=0.1, hspace=0.3,
            left=0.005, right=0.995, top=1 - 0.26 / (0.93 * lines + 0.28), bottom=0.015,
        )  # fmt: skip
        for i, query in enumerate(queries):
            line, column = i % lines, i // lines * (count + 3)
            ax = figure.add_subplot(grid[line, column])
            show_image(ax, pictures[query], frame=INK)
            name = label(class_name(int(labels[query]), classes), 14)
            ax.set_title(name, size=8.5, pad=3, loc="center")
            for j, other in enumerate(neighbours[query]):
                same = labels[other] == labels[query]
                frame = RULE if labels[query] < 0 else BLUE if same else ORANGE
                ax = figure.add_subplot(grid[line, column + 2 + j])
                show_image(ax, pictures[other], frame=frame)
                if labels[query] >= 0 and not same:
                    name = label(class_name(int(labels[other]), classes), 14)
                    ax.set_title(name, size=8.5, pad=3, loc="center", color=ORANGE, weight="normal")
        save(figure, path)
    return True


def _choose_queries(labels: np.ndarray, limit: int) -> list[int]:
    """Returns row indices that take turns over the classes: no class twice before all have one."""
    turn = np.zeros(len(labels), int)
    for code in np.unique(labels):
        rows = np.flatnonzero(labels == code)
        turn[rows] = np.arange(len(rows))
    return np.lexsort((labels, turn))[:limit].tolist()


def unit_rows(x: np.ndarray) -> np.ndarray:
    """Scales rows [n, f] to unit length; zero rows stay zero."""
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
