"""Layout and axes that the figures of a study share."""

import math
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from ssl_jax.report.figures.style import LINES

WIDTH = 11.8  # inches
LABEL_SHARE = 0.026  # width of a character relative to the axis of the narrowest plot
MARGIN = 0.35  # octaves beside the first and the last value


def plot_grid(
    count: int, *, columns: int = 0, sharey: bool = False
) -> tuple[Figure, Sequence[Axes]]:
    """Creates a figure with a grid of plots.

    Args:
      count: number of plots.
      columns: plots per row; 0 takes up to three.
      sharey: share the vertical axis.
    """
    columns = columns or min(count, 3)
    rows = math.ceil(count / columns)
    figure = Figure(
        figsize=(WIDTH if columns > 1 else 0.62 * WIDTH, 3.9 * rows), layout="constrained"
    )
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.08)  # type: ignore[union-attr]
    plots = list(figure.subplots(rows, columns, squeeze=False, sharey=sharey).flat)
    for ax in plots[count:]:
        ax.remove()
    return figure, plots[:count]


def _spaced_labels(values: Sequence[float]) -> list[str]:
    """Returns the values as text, "" for those so close to the label before that both would touch.

    A label takes about `LABEL_SHARE` of the axis per character.
    """
    span = math.log2(max(values) / min(values)) + 2 * MARGIN
    labels, end = {}, -math.inf
    for value in sorted(values):
        text = f"{value:,g}"
        half = (len(text) + 1) / 2 * LABEL_SHARE * span
        fits = math.log2(value) - half >= end
        labels[value] = text if fits else ""
        end = math.log2(value) + half if fits else end
    return [labels[value] for value in values]


def line_colors(count: int) -> Sequence[str]:
    """Returns a colour for each of `count` lines: of the palette, or of a map if it has too few."""
    if count <= len(LINES):
        return LINES[:count]
    return [to_hex(color) for color in matplotlib.colormaps["turbo"](np.linspace(0, 1, count))]


def set_octaves(ax: Axes, values: Sequence[float], name: str) -> None:
    """Makes the horizontal axis logarithmic, with a tick at each of the values."""
    ax.set_xscale("log", base=2)
    ax.set_xticks(list(values), _spaced_labels(values))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlim(min(values) / 2**MARGIN, max(values) * 2**MARGIN)
    ax.set_xlabel(name)
