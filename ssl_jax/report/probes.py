"""Accuracy over the number of labels, and over the layers of the encoder, as PNG files."""

import math
import os
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from ssl_jax.report.evaluation import METHODS, Evaluation, column, feature_sets, kind_of, result
from ssl_jax.report.style import BLUE, MUTED, ORANGE, STYLE, label, save

# After the run's own features, which are blue.
OTHERS = (("#777777", "--"), (ORANGE, "-."), ("#117733", ":"), ("#882255", (0, (5, 1, 1, 1))))


class Line(NamedTuple):
    """Accuracy in per cent of a feature set, [n] each."""

    name: str
    x: list[Any]  # shots, or names of layers
    y: np.ndarray
    spread: np.ndarray | None


def draw(evaluation: Evaluation, own: str, path: str | os.PathLike[str]) -> bool:
    """Draws an evaluation of kind "few_shot" or "layers"; False, and no file, when it is empty.

    Args:
      own: name of the feature set that leads.
    """
    lines = _lines(evaluation)
    if not lines:
        return False
    lines.sort(key=lambda line: line.name != own)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.8, 3.9), layout="constrained")
        ax = figure.add_subplot()
        ticks = list(dict.fromkeys(x for line in lines for x in line.x))
        layers = kind_of(evaluation) == "layers"
        for i, line in enumerate(lines):
            color, dash = (BLUE, "-") if i == 0 else OTHERS[(i - 1) % len(OTHERS)]
            x = [ticks.index(v) for v in line.x] if layers else line.x
            name = label(METHODS.get(line.name, line.name))
            ax.plot(x, line.y, dash, color=color, marker="o", markersize=5, label=name)
            if line.spread is not None:
                low, high = line.y - line.spread, line.y + line.spread
                ax.fill_between(x, low, high, color=color, alpha=0.14, linewidth=0)
        _layers(ax, ticks) if layers else _shots(ax, ticks)
        ax.set_title(("By layer" if layers else "By number of labels") + "  (accuracy, %)")
        ax.margins(y=0.08)
        ax.legend(fontsize=9, handlelength=2.4)
        save(figure, path)
    return True


def caption(evaluation: Evaluation) -> str:
    """What the picture shows and what it does not."""
    if kind_of(evaluation) == "layers":
        return (
            "A linear classifier on every layer's pooled output, from the images to the end of "
            "the encoder. A layer with more outputs has a bigger classifier: a rise says that "
            "classes are easier to separate there, not which layer another task would want."
        )
    band = any(line.spread is not None for line in _lines(evaluation))
    return (
        "A linear classifier on frozen features, with few labels of each class. "
        + ("Band: 95 % t-interval of the mean over draws of the labels. " if band else "")
        + "The test images stay the same: it does not say how others would come out."
    )


def _shots(ax: Axes, shots: list[int]) -> None:
    ax.set_xscale("log")
    ax.set_xticks(shots, [f"{shot:g}" for shot in shots])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("labels per class")


def _layers(ax: Axes, names: list[str]) -> None:
    many = sum(map(len, map(str, names))) > 48
    ax.set_xticks(
        range(len(names)), [label(str(name), 20) for name in names],
        rotation=40 if many else 0, ha="right" if many else "center",
        rotation_mode="anchor" if many else "default", color=MUTED,
    )  # fmt: skip
    ax.set_xlabel("layer")


def _lines(evaluation: Evaluation) -> list[Line]:
    """The feature sets whose numbers are whole."""
    key = "layers" if kind_of(evaluation) == "layers" else "shots"
    lines = []
    for name in feature_sets([evaluation]):
        found = result(evaluation, name)
        x, y, ci = (column(found, k) for k in (key, "accuracy", "ci95"))
        if not x or len(x) != len(y) or not all(map(_finite, y)):
            continue
        if key == "shots" and not all(_finite(shot) and shot > 0 for shot in x):
            continue
        whole = len(ci) == len(y) and all(map(_finite, ci))
        spread = 100 * np.array(ci, float) if whole else None
        lines.append(Line(name, x, 100 * np.array(y, float), spread))
    return lines


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
