"""Grids of images: originals beside their random views, and the pictures of a method.

Images are RGB [h, w, 3], uint8 or float in [0, 1].
"""

import math
import os
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssl_jax.report.figures.style import STYLE, save

WIDE, NARROW = 1.4, 0.7  # inches per image, with up to 8 columns and with more


def draw_views(
    originals: Sequence[np.ndarray],
    views: np.ndarray,
    path: str | os.PathLike[str],
    *,
    local: np.ndarray | None = None,
) -> None:
    """Draws a row for each image: the original, then its random views, on one scale.

    Args:
      originals: n images uint8 [h, w, 3], of any sizes.
      views: [n, v, s, s, 3], uint8 or float in [0, 1].
      path: PNG file to write.
      local: local views [n, l, s', s', 3]; None if there are none.
    """
    rows = [[original, *row] for original, row in zip(originals, views, strict=True)]
    titles = ["original", *(f"view {i + 1}" for i in range(views.shape[1]))]
    height = views.shape[2]
    if local is not None:
        height = max(height, local.shape[2])
        rows = [[*row, _mosaic(crops, height)] for row, crops in zip(rows, local, strict=True)]
        titles.append("local")
    widths = [1.0, *(image.shape[1] / height for image in rows[0][1:])]
    side = min(1.5, 11.8 / sum(widths))
    inches = len(rows) * side + 0.35
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(sum(widths) * side, inches))
        axes = figure.subplots(len(rows), len(widths), squeeze=False, width_ratios=widths)
        figure.subplots_adjust(0.01, 0.01, 0.99, 1 - 0.33 / inches, wspace=0.06, hspace=0.06)
        for line, row in zip(axes, rows, strict=True):
            for ax, image in zip(line, row, strict=True):
                show_image(ax, image)
                ax.set_adjustable("datalim")  # keeps all titles on one line
        for ax, title in zip(axes[0], titles, strict=True):
            ax.set_title(title, size=10, loc="center", pad=6)
        save(figure, path)


def draw_grid(images: np.ndarray, path: str | os.PathLike[str], titles: Sequence[str] = ()) -> None:
    """Draws a grid of images.

    Args:
      images: float [rows, columns, h, w, c] in [0, 1]; c is 3, or 1 for grey images.
      path: PNG file to write.
      titles: titles of the columns; () for none.
    """
    rows, columns, _, _, channels = images.shape
    if channels == 1:
        images = np.repeat(images, 3, axis=-1)
    side = WIDE if columns <= 8 else NARROW
    inches = rows * side + (0.33 if titles else 0)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(columns * side, inches))
        axes = figure.subplots(rows, columns, squeeze=False)
        top = 0.995 - (0.33 / inches if titles else 0)
        figure.subplots_adjust(0.005, 0.005, 0.995, top, wspace=0.06, hspace=0.06)
        for line, row in zip(axes, images, strict=True):
            for ax, image in zip(line, row, strict=True):
                show_image(ax, image)
        for ax, title in zip(axes[0], titles, strict=False):
            ax.set_title(title, size=10, loc="center", pad=6)
        save(figure, path)


def _mosaic(crops: np.ndarray, height: int) -> np.ndarray:
    """Places crops [l, s, s, 3] on a white image, in as many lines as `height` pixels hold."""
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


def show_image(ax: Axes, image: np.ndarray, *, frame: str = "") -> None:
    """Draws an image [h, w, 3], centred in a square.

    Args:
      ax: axes to draw on.
      image: uint8, or float in [0, 1].
      frame: colour of a frame; "" draws no frame.
    """
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
