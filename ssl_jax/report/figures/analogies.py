"""Figure of parallel analogies: pairs of words in the plane of their vectors' main directions."""

import os
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from ssl_jax.report.figures.style import BLUE, ORANGE, STYLE, label, save

MOST, FEWEST = 12, 3  # pairs of a panel
PANELS = 2
Pairs = Mapping[str, Sequence[tuple[int, int]]]


def draw(pairs: Pairs, rows: np.ndarray, words: np.ndarray, path: str | os.PathLike[str]) -> bool:
    """Draws an arrow from the first to the second word of each pair, a panel per section.

    The axes are the first two principal components of the panel's words. The sections with the most
    frequent words are drawn, capitals of countries first.

    Args:
      pairs: section -> numbers of words.
      rows: unit vectors [V, d].
      words: str [V], by falling frequency.
      path: PNG file to write.

    Returns:
      False, and no file is written, if no section has three pairs.
    """
    chosen = _sections(pairs)
    if not chosen or rows.shape[1] < 2:
        return False
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.2 * len(chosen), 5.4), layout="constrained")
        axes = figure.subplots(1, len(chosen), squeeze=False)[0]
        for ax, (section, own) in zip(axes, chosen.items(), strict=True):
            _panel(ax, own, rows, words)
            ax.set_title(label(section))
        save(figure, path)
    return True


def _sections(pairs: Pairs) -> dict[str, list[tuple[int, int]]]:
    """Returns the sections to draw with their most frequent pairs."""
    kept = {
        name: sorted(set(found), key=max)[:MOST]
        for name, found in pairs.items()
        if len(set(found)) >= FEWEST
    }
    order = sorted(
        kept, key=lambda name: ("capital" not in name, np.mean([max(p) for p in kept[name]]), name)
    )
    chosen: dict[str, list[tuple[int, int]]] = {}
    for name in order:
        # Google's file has two sections of capitals, which share their frequent pairs.
        shared = any(set(kept[name]) & set(other) for other in chosen.values())
        if not shared and len(chosen) < PANELS:
            chosen[name] = kept[name]
    return chosen


def _panel(ax: Axes, pairs: Sequence[tuple[int, int]], rows: np.ndarray, words: np.ndarray) -> None:
    numbers = np.array(pairs)
    points = rows[numbers.reshape(-1)].astype(np.float64)
    points = points - points.mean(0)
    _, _, axes = np.linalg.svd(points, full_matrices=False)
    xy = (points @ axes[:2].T).reshape(-1, 2, 2)
    for start, end in xy:
        ax.annotate(
            "", end, start, arrowprops={"arrowstyle": "->", "color": "0.6", "lw": 1, "shrinkB": 4}
        )
    halo = [withStroke(linewidth=3, foreground="white")]
    for side, color in enumerate((BLUE, ORANGE)):
        ax.scatter(*xy[:, side].T, s=18, c=color, lw=0, zorder=3)
        for number, point in zip(numbers[:, side], xy[:, side], strict=True):
            ax.annotate(
                label(str(words[number])), point, xytext=(4, 4), textcoords="offset points",
                size=9, color=color, path_effects=halo, zorder=4,
            )  # fmt: skip
    ax.margins(0.12)
    ax.set(xticks=[], yticks=[])
    ax.spines[["left", "bottom"]].set_visible(False)
