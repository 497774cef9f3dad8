"""Saliency figure: which parts of an image change its features when they are covered."""

import os

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from ssl_jax.report.figures.image_grids import show_image
from ssl_jax.report.figures.style import MUTED, STYLE, label, save
from ssl_jax.report.run_files import class_name

# From transparent to orange: over a grey image, only parts that change the features have colour.
HEAT = LinearSegmentedColormap.from_list("heat", ["#d55e0000", "#d55e00f0"])
MIN_TOP = 0.01  # smallest upper end of the scale: below, a change is hardly one of direction
GREY = np.array([0.299, 0.587, 0.114])  # luma of BT.601


def draw(
    pictures: np.ndarray,
    heat: np.ndarray,
    labels: np.ndarray,
    classes: list[str],
    path: str | os.PathLike[str],
    *,
    limit: int = 8,
) -> bool:
    """Draws images and, below each, how much its features change when a part is covered.

    Args:
      pictures: uint8 RGB [n, h, w, 3], one picture per example.
      heat: float [m, g, g], change of the features of the first m examples by covered part.
      labels: int [n], negative without a label.
      classes: class names.
      path: PNG file to write.
      limit: largest number of images.

    Returns:
      False without a file if `heat` is empty or has another rank.
    """
    heat = np.asarray(heat, np.float32)[:limit]
    if heat.ndim != 3 or not heat.size:
        return False
    with matplotlib.rc_context(STYLE):
        width = 1.36 * len(heat) + 0.9
        figure = Figure(figsize=(width, 3.15), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03)  # type: ignore[union-attr]
        axes = figure.subplots(2, len(heat), squeeze=False)
        for i, column in enumerate(axes.T):
            show_image(column[0], pictures[i])
            name = label(class_name(int(labels[i]), classes), 14)
            column[0].set_title(name, size=9, loc="center", pad=4)
            mappable = _overlay(column[1], pictures[i], heat[i], max(float(heat.max()), MIN_TOP))
        bar = figure.colorbar(mappable, ax=axes, fraction=0.03, pad=0.015)
        bar.set_label("1 − cosine", color=MUTED)
        bar.outline.set_visible(False)  # type: ignore[operator]
        save(figure, path)
    return True


def _overlay(ax: Axes, picture: np.ndarray, heat: np.ndarray, top: float) -> AxesImage:
    """Draws heat [g, g] over a grey copy of a picture; returns what a colour bar needs."""
    grey = picture @ GREY / 255
    show_image(ax, np.repeat((0.35 + 0.65 * grey)[..., None], 3, axis=2))
    height, width = picture.shape[:2]
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    return ax.imshow(heat, cmap=HEAT, vmin=0, vmax=top, extent=extent, interpolation="nearest")
