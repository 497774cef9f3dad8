"""Which classes are taken for which: from the predictions that an evaluation left behind."""

import os
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from ssl_jax.report.evaluation import order
from ssl_jax.report.files import Run, class_name
from ssl_jax.report.style import BLUE, INK, ORANGE, RULE, STYLE, label, save

MAX_MATRIX = 20  # classes; with more, a list of pairs
PAIRS = 15
RIGHT = LinearSegmentedColormap.from_list("right", ["#ffffff", "#8fc0e0", BLUE])
WRONG = LinearSegmentedColormap.from_list("wrong", ["#ffffff", "#eeb28a", ORANGE])


def chosen(run: Run) -> str:
    """Name of the evaluation that is drawn, "" without any.

    The linear evaluation with most labels; else kNN; else whatever predicted.
    """
    names = [name for name in run.predictions if name != "label"]
    rank = {"linear": 0, "linear_sgd": 1, "knn": 3}

    def key(name: str) -> Any:
        few = 2 if name.startswith("linear_") else 4
        return rank.get(name, few), [-part for part in order(name)], name

    return min(names, key=key, default="")


def matrix(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Counts int [k, k], true by predicted class, of int [m] each; without a label left out."""
    known = (truth >= 0) & (predicted >= 0)
    counts = np.zeros((classes, classes), int)
    np.add.at(counts, (truth[known], predicted[known]), 1)
    return counts


def pairs(counts: np.ndarray, limit: int = PAIRS) -> list[tuple[int, int, float]]:
    """(true class, predicted class, share of the true class's images) of the worst confusions."""
    totals = counts.sum(1)
    wrong = counts - np.diag(np.diag(counts))
    cells = zip(*(axis.tolist() for axis in wrong.nonzero()), strict=True)
    found = [(i, j, float(wrong[i, j] / totals[i])) for i, j in cells]
    return sorted(found, key=lambda pair: (-pair[2], -wrong[pair[:2]], pair[:2]))[:limit]


def draw(run: Run, path: str | os.PathLike[str]) -> str:
    """Draws the matrix, or the most confused pairs; returns "matrix", "pairs" or "" if neither."""
    name = chosen(run)
    if not name or "label" not in run.predictions:
        return ""
    truth, predicted = (np.asarray(run.predictions[key], int) for key in ("label", name))
    if len(truth) != len(predicted) or not (truth >= 0).any():
        return ""
    size = int(max(truth.max(), predicted.max(), len(run.classes) - 1)) + 1
    counts = matrix(truth, predicted, size)
    found = pairs(counts)
    if size > MAX_MATRIX and not found:
        return ""
    with matplotlib.rc_context(STYLE):
        if size <= MAX_MATRIX:
            _matrix(counts, [label(class_name(i, run.classes), 14) for i in range(size)], path)
            return "matrix"
        _pairs(found, run.classes, path)
        return "pairs"


def _matrix(counts: np.ndarray, names: list[str], path: str | os.PathLike[str]) -> None:
    size = len(names)
    share = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    right = np.eye(size, dtype=bool)
    worst = max(float(share[~right].max(initial=0)), 10.0)
    side = 1.5 + 0.46 * size
    figure = Figure(figsize=(side, side), layout="constrained")
    ax = figure.add_subplot()
    ax.imshow(np.ma.array(share, mask=~right), cmap=RIGHT, vmin=0, vmax=100)
    ax.imshow(np.ma.array(share, mask=right), cmap=WRONG, vmin=0, vmax=worst)
    for (i, j), value in np.ndenumerate(share):
        if value >= 0.5:
            dark = value > (60 if i == j else 0.8 * worst)
            color = "white" if dark else INK
            ax.text(j, i, f"{value:.0f}", ha="center", va="center", color=color, size=8.5)
    turned = max(map(len, names)) > 4
    ax.set_xticks(
        range(size), names, rotation=45 if turned else 0, ha="right" if turned else "center",
        rotation_mode="anchor" if turned else "default",
    )  # fmt: skip
    ax.set_yticks(range(size), names)
    ax.set(xlabel="predicted class", ylabel="true class")
    _bare(ax)
    ax.set_xticks(np.arange(size + 1) - 0.5, minor=True)
    ax.set_yticks(np.arange(size + 1) - 0.5, minor=True)
    ax.grid(which="minor", color=RULE, linewidth=0.8)
    ax.tick_params(which="both", length=0)
    save(figure, path)


def _pairs(
    found: list[tuple[int, int, float]], classes: list[str], path: str | os.PathLike[str]
) -> None:
    names = [
        f"{label(class_name(i, classes), 28)}  →  {label(class_name(j, classes), 28)}"
        for i, j, _ in found
    ]
    figure = Figure(figsize=(8.4, 0.34 * len(found) + 0.8), layout="constrained")
    ax = figure.add_subplot()
    values = [100 * share for _, _, share in found]
    bars = ax.barh(range(len(found)), values, color=ORANGE, height=0.62)
    ax.bar_label(bars, fmt="%.0f", padding=4, color=INK, size=9)
    ax.set_yticks(range(len(found)), names, color=INK)
    ax.invert_yaxis()
    ax.set_xlim(0, 1.08 * max(values))
    ax.set_xlabel("per cent of the true class's images")
    _bare(ax)
    save(figure, path)


def _bare(ax: Axes) -> None:
    ax.grid(visible=False)
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
