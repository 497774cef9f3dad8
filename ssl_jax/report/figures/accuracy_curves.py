"""Curves of an evaluation: accuracy over the number of labels, layers or another axis."""

import os
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from ssl_jax.jobs.json_files import is_number
from ssl_jax.report.display_names import METHOD_NAMES
from ssl_jax.report.evaluations import (
    SHOTS,
    Evaluation,
    curve_axis,
    feature_sets,
    result_list,
    result_of,
)
from ssl_jax.report.figures.style import BLUE, MUTED, ORANGE, STYLE, label, save

# (colour, dash) of the feature sets after the run's own, which is blue.
BASELINE_STYLES = (
    *(("#777777", "--"), (ORANGE, "-."), ("#117733", ":")),
    ("#882255", (0, (5, 1, 1, 1))),
)


LAYERS = "layers"
AXIS_NAMES = {  # {axis: (title, label of the x axis)}
    SHOTS: ("By number of labels", "labels per class"),
    LAYERS: ("By layer", "layer"),
}


class Line(NamedTuple):
    """Accuracies of one feature set in per cent.

    Attributes:
      name: name of the feature set.
      x: n positions on the axis: numbers, for example labels per class, or names.
      y: accuracies [n] in per cent.
      spread: half-widths [n] of the 95 % intervals; None if unknown.
    """

    name: str
    x: list[Any]
    y: np.ndarray
    spread: np.ndarray | None


def draw(evaluation: Evaluation, own: str, path: str | os.PathLike[str]) -> bool:
    """Draws an evaluation; returns False and writes no file if it has no valid line.

    Args:
      evaluation: evaluation whose accuracies are lists, see `evaluations.curve_axis`.
      own: name of the feature set to draw first.
      path: PNG file to write.
    """
    lines = _lines(evaluation)
    if not lines:
        return False
    lines.sort(key=lambda line: line.name != own)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.8, 3.9), layout="constrained")
        ax = figure.add_subplot()
        ticks = list(dict.fromkeys(x for line in lines for x in line.x))
        axis, named = curve_axis(evaluation), any(isinstance(tick, str) for tick in ticks)
        for i, line in enumerate(lines):
            styles = BASELINE_STYLES
            color, dash = (BLUE, "-") if i == 0 else styles[(i - 1) % len(styles)]
            x = [ticks.index(v) for v in line.x] if named else line.x
            name = label(METHOD_NAMES.get(line.name, line.name))
            ax.plot(x, line.y, dash, color=color, marker="o", markersize=5, label=name)
            if line.spread is not None:
                low, high = line.y - line.spread, line.y + line.spread
                ax.fill_between(x, low, high, color=color, alpha=0.14, linewidth=0)
        _name_axis(ax, ticks) if named else _number_axis(ax, ticks)
        title, axis_label = AXIS_NAMES.get(axis, (f"By {axis}", axis))
        ax.set_xlabel(axis_label)
        ax.set_title(f"{title}  (accuracy, %)")
        ax.margins(y=0.08)
        ax.legend(fontsize=9, handlelength=2.4)
        save(figure, path)
    return True


def caption(evaluation: Evaluation) -> str:
    """Returns the caption, which also says what the figure does not show."""
    axis = curve_axis(evaluation)
    if axis == LAYERS:
        return (
            "A linear classifier on the pooled output of each layer, from the images to the end of "
            "the encoder. A layer with more outputs has a bigger classifier. A rise shows that "
            "classes are easier to separate there, but not which layer suits another task."
        )
    band = any(line.spread is not None for line in _lines(evaluation))
    classifier = "A linear classifier on frozen features, with few labels per class. "
    return (
        (classifier if axis == SHOTS else f"Accuracy on frozen features by {axis}. ")
        + ("Band: 95 % t-interval of the mean over draws of the labels. " if band else "")
        + "The test images stay the same: the figure does not show how other test images vary."
    )


def _number_axis(ax: Axes, numbers: list[float]) -> None:
    ax.set_xscale("log")
    ax.set_xticks(numbers, [f"{number:g}" for number in numbers])
    ax.xaxis.set_minor_locator(NullLocator())


def _name_axis(ax: Axes, names: list[str]) -> None:
    rotated = sum(map(len, map(str, names))) > 48
    ax.set_xticks(
        range(len(names)), [label(str(name), 20) for name in names],
        rotation=40 if rotated else 0, ha="right" if rotated else "center",
        rotation_mode="anchor" if rotated else "default", color=MUTED,
    )  # fmt: skip


def _lines(evaluation: Evaluation) -> list[Line]:
    """Returns a line for each feature set whose numbers are complete and finite."""
    axis = curve_axis(evaluation)
    lines = []
    for name in feature_sets([evaluation]):
        result = result_of(evaluation, name)
        x, y, ci = (result_list(result, k) for k in (axis, "accuracy", "ci95"))
        if not x or len(x) != len(y) or not all(map(is_number, y)):
            continue
        if not all(isinstance(v, str) for v in x) and not all(is_number(v) and v > 0 for v in x):
            continue  # the axis of numbers is logarithmic
        has_spread = len(ci) == len(y) and all(map(is_number, ci))
        spread = 100 * np.array(ci, float) if has_spread else None
        lines.append(Line(name, x, 100 * np.array(y, float), spread))
    return lines
