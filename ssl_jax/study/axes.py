"""What the figures of a study share: their size, and axes in octaves."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

WIDTH = 11.8  # inches


def grid(count: int, *, columns: int = 0, sharey: bool = False) -> tuple[Figure, Sequence[Axes]]:
    """A figure of so many plots, `columns` or up to three in a row."""
    columns = columns or min(count, 3)
    down = math.ceil(count / columns)
    figure = Figure(
        figsize=(WIDTH if columns > 1 else 0.62 * WIDTH, 3.9 * down), layout="constrained"
    )
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.08)  # type: ignore[union-attr]
    plots = list(figure.subplots(down, columns, squeeze=False, sharey=sharey).flat)
    for ax in plots[count:]:
        ax.remove()
    return figure, plots[:count]


def octaves(ax: Axes, values: Sequence[float], name: str) -> None:
    """A logarithmic axis whose ticks are the values themselves."""
    ax.set_xscale("log", base=2)
    ax.set_xticks(list(values), [f"{value:,g}" for value in values])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlim(min(values) / 2**0.35, max(values) * 2**0.35)
    ax.set_xlabel(name)
