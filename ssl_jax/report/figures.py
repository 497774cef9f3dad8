"""The pictures of a run, as PNG files: neighbours, views, generated images."""

import math
import os
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssl_jax.report.files import Run, class_name
from ssl_jax.report.style import BLUE, INK, ORANGE, RULE, STYLE, label, save

GENERATED = 100  # images, ten in a row
MIN_POINTS = 10  # examples, for a map or neighbours


def nearest(features: np.ndarray, count: int) -> np.ndarray:
    """Rows of the `count` nearest others in cosine similarity: [n, f] -> int [n, count]."""
    rows = unit(features)
    similarity = rows @ rows.T
    np.fill_diagonal(similarity, -np.inf)
    return np.argsort(-similarity, axis=1, kind="stable")[:, :count]


def precision(run: Run, count: int = 6) -> float | None:
    """Fraction of the sample's nearest neighbours that share the query's class; None unlabelled."""
    if not run.sample or len(run.sample["features"]) < MIN_POINTS:
        return None
    labels = run.sample["label"]
    same = labels[nearest(run.sample["features"], count)] == labels[:, None]
    return float(same[labels >= 0].mean()) if (labels >= 0).any() else None


def neighbours(run: Run, path: str | os.PathLike[str], *, count: int = 6) -> bool:
    """Draws queries, one of each class first, and their nearest neighbours in the sample.

    The frame says whether a neighbour is of the query's class. False when examples are too few.
    """
    if not run.sample or len(run.sample["features"]) < MIN_POINTS:
        return False
    labels, images = run.sample["label"], run.sample["image"]
    classes = run.classes
    rows, found = _queries(labels, 10), nearest(run.sample["features"], count)
    down = math.ceil(len(rows) / 2)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11.8, 0.93 * down + 0.28))
        widths = [1, 0.14, *[1] * count, 0.45, 1, 0.14, *[1] * count]
        grid = figure.add_gridspec(
            down, len(widths), width_ratios=widths, wspace=0.1, hspace=0.3,
            left=0.005, right=0.995, top=1 - 0.26 / (0.93 * down + 0.28), bottom=0.015,
        )  # fmt: skip
        for i, query in enumerate(rows):
            line, column = i % down, i // down * (count + 3)
            ax = figure.add_subplot(grid[line, column])
            show(ax, images[query], frame=INK)
            name = label(class_name(int(labels[query]), classes), 14)
            ax.set_title(name, size=8.5, pad=3, loc="center")
            for j, other in enumerate(found[query]):
                right = labels[other] == labels[query]
                frame = RULE if labels[query] < 0 else BLUE if right else ORANGE
                ax = figure.add_subplot(grid[line, column + 2 + j])
                show(ax, images[other], frame=frame)
                if labels[query] >= 0 and not right:
                    name = label(class_name(int(labels[other]), classes), 14)
                    ax.set_title(name, size=8.5, pad=3, loc="center", color=ORANGE, weight="normal")
        save(figure, path)
    return True


def _queries(labels: np.ndarray, limit: int) -> list[int]:
    """Rows in turn over classes, so that every class is asked before any is asked twice."""
    turn = np.zeros(len(labels), int)
    for code in np.unique(labels):
        rows = np.flatnonzero(labels == code)
        turn[rows] = np.arange(len(rows))
    return np.lexsort((labels, turn))[:limit].tolist()


def view_grid(
    originals: Sequence[np.ndarray],
    views: np.ndarray,
    path: str | os.PathLike[str],
    *,
    local: np.ndarray | None = None,
) -> None:
    """Draws a row for every image: the original, then its random views, in proportion.

    Args:
      originals: uint8 [h, w, 3], of any sizes.
      views: [n, v, s, s, 3], uint8 or float in [0, 1].
      path: PNG file to write.
      local: the local views [n, l, s', s', 3], if there are any.
    """
    rows = [[original, *row] for original, row in zip(originals, views, strict=True)]
    titles = ["original", *(f"view {i + 1}" for i in range(views.shape[1]))]
    tall = views.shape[2]
    if local is not None:
        tall = max(tall, local.shape[2])
        rows = [[*row, _mosaic(crops, tall)] for row, crops in zip(rows, local, strict=True)]
        titles.append("local")
    widths = [1.0, *(image.shape[1] / tall for image in rows[0][1:])]
    side = min(1.5, 11.8 / sum(widths))
    height = len(rows) * side + 0.35
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(sum(widths) * side, height))
        axes = figure.subplots(len(rows), len(widths), squeeze=False, width_ratios=widths)
        figure.subplots_adjust(0.01, 0.01, 0.99, 1 - 0.33 / height, wspace=0.06, hspace=0.06)
        for line, row in zip(axes, rows, strict=True):
            for ax, image in zip(line, row, strict=True):
                show(ax, image)
                ax.set_adjustable("datalim")  # so that all titles stand on one line
        for ax, title in zip(axes[0], titles, strict=True):
            ax.set_title(title, size=10, loc="center", pad=6)
        save(figure, path)


def sample_grid(images: np.ndarray, path: str | os.PathLike[str]) -> None:
    """Draws generated images [n, s, s, 3], ten in a row, float in [0, 1]."""
    lines = math.ceil(len(images) / 10)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.0, 0.7 * lines))
        axes = figure.subplots(lines, 10, squeeze=False)
        figure.subplots_adjust(0.005, 0.005, 0.995, 0.995, wspace=0.06, hspace=0.06)
        for ax, image in zip(axes.flat, images, strict=False):
            show(ax, image)
        for ax in axes.flat[len(images) :]:
            ax.set_axis_off()
        save(figure, path)


def _mosaic(crops: np.ndarray, height: int) -> np.ndarray:
    """Crops [l, s, s, 3] side by side on white, in as many lines as `height` pixels hold."""
    count, size = crops.shape[:2]
    gap = max(1, size // 12)
    columns = math.ceil(count / max(1, (height + gap) // (size + gap)))
    lines = math.ceil(count / columns)
    white = 255 if crops.dtype == np.uint8 else 1
    canvas = np.full((height, columns * (size + gap) - gap, 3), white, crops.dtype)
    top = (height - lines * (size + gap) + gap) // 2
    for i, crop in enumerate(crops):
        y, x = top + i // columns * (size + gap), i % columns * (size + gap)
        canvas[y : y + size, x : x + size] = crop
    return canvas


def show(ax: Axes, image: np.ndarray, *, frame: str = "") -> None:
    """Draws an image [h, w, 3], centred in a square, with a coloured frame when one is given."""
    small = max(image.shape[:2]) < 64
    ax.imshow(
        image if image.dtype == np.uint8 else np.clip(image, 0, 1),
        interpolation="nearest" if small else "antialiased",
    )
    ax.grid(visible=False)
    ax.set(xticks=[], yticks=[])
    ax.set_anchor("C")
    for spine in ax.spines.values():
        spine.set(visible=bool(frame), color=frame or "none", linewidth=2.6)


def unit(x: np.ndarray) -> np.ndarray:
    """Rows [n, f] at unit length; zero stays zero."""
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
