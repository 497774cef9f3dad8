"""Where an image can be covered without its features noticing, and where not."""

import os

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from ssl_jax.report.figures import show
from ssl_jax.report.files import Run, class_name
from ssl_jax.report.style import MUTED, STYLE, label, save

# From unseen to orange: over a grey image only what matters is coloured.
HEAT = LinearSegmentedColormap.from_list("heat", ["#d55e0000", "#d55e00f0"])
GREY = np.array([0.299, 0.587, 0.114])  # luma of BT.601


def draw(run: Run, path: str | os.PathLike[str], *, limit: int = 8) -> bool:
    """Draws images and, below, how much their features change by covering each part.

    False, and no file, when the sample has no saliency.
    """
    heat = np.asarray(run.sample.get("saliency", ()), np.float32)[:limit]
    if heat.ndim != 3 or not heat.size:
        return False
    images, labels = run.sample["image"], run.sample["label"]
    with matplotlib.rc_context(STYLE):
        width = 1.36 * len(heat) + 0.9
        figure = Figure(figsize=(width, 3.15), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03)  # type: ignore[union-attr]
        axes = figure.subplots(2, len(heat), squeeze=False)
        for i, column in enumerate(axes.T):
            show(column[0], images[i])
            name = label(class_name(int(labels[i]), run.classes), 14)
            column[0].set_title(name, size=9, loc="center", pad=4)
            drawn = _overlay(column[1], images[i], heat[i], max(float(heat.max()), 1e-6))
        bar = figure.colorbar(drawn, ax=axes, fraction=0.03, pad=0.015)
        bar.set_label("1 − cosine", color=MUTED)
        bar.outline.set_visible(False)  # type: ignore[operator]
        save(figure, path)
    return True


def _overlay(ax: Axes, image: np.ndarray, heat: np.ndarray, top: float) -> AxesImage:
    """Draws a map [g, g] over a grey image [h, w, 3]; returns what a colour bar needs."""
    grey = image @ GREY / 255
    show(ax, np.repeat((0.35 + 0.65 * grey)[..., None], 3, axis=2))
    height, width = image.shape[:2]
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    return ax.imshow(heat, cmap=HEAT, vmin=0, vmax=top, extent=extent, interpolation="nearest")
