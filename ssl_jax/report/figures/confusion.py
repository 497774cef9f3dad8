"""Figure of confused classes, from the predictions that an evaluation saved."""

import os
from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from ssl_jax.report.evaluations import sort_key
from ssl_jax.report.figures.style import BLUE, INK, ORANGE, RULE, STYLE, label, save
from ssl_jax.report.run_files import class_name

MAX_MATRIX = 20  # classes; with more, the figure is a list of pairs
MAX_PAIRS = 15
RIGHT = LinearSegmentedColormap.from_list("right", ["#ffffff", "#8fc0e0", BLUE])
WRONG = LinearSegmentedColormap.from_list("wrong", ["#ffffff", "#eeb28a", ORANGE])


def choose_evaluation(predictions: Mapping[str, np.ndarray]) -> str:
    """Returns the name of the evaluation to draw; "" if there is none.

    Prefers the linear evaluation with most labels, then kNN, then any other.
    """
    names = [name for name in predictions if name != "label"]
    rank = {"linear": 0, "linear_sgd": 1, "knn": 3}

    def key(name: str) -> Any:
        default = 2 if name.startswith("linear_") else 4
        return rank.get(name, default), [-part for part in sort_key(name)], name

    return min(names, key=key, default="")


def confusion_matrix(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Counts examples by true and predicted class; negative labels are ignored.

    Args:
      truth: int [m], true classes.
      predicted: int [m], predicted classes.
      classes: k, the number of classes.

    Returns:
      int [k, k], rows by true class.
    """
    known = (truth >= 0) & (predicted >= 0)
    counts = np.zeros((classes, classes), int)
    np.add.at(counts, (truth[known], predicted[known]), 1)
    return counts


def worst_pairs(counts: np.ndarray, limit: int = MAX_PAIRS) -> list[tuple[int, int, float]]:
    """Returns the most frequent confusions, most frequent first.

    Args:
      counts: int [k, k], see `confusion_matrix`.
      limit: largest number of pairs.

    Returns:
      (true class, predicted class, share of the true class's images) for each pair.
    """
    totals = counts.sum(1)
    wrong = counts - np.diag(np.diag(counts))
    cells = zip(*(axis.tolist() for axis in wrong.nonzero()), strict=True)
    pairs = [(i, j, float(wrong[i, j] / totals[i])) for i, j in cells]
    return sorted(pairs, key=lambda pair: (-pair[2], -wrong[pair[:2]], pair[:2]))[:limit]


def draw(
    predictions: Mapping[str, np.ndarray], classes: list[str], path: str | os.PathLike[str]
) -> str:
    """Draws a confusion matrix, or the most confused pairs if there are many classes.

    Args:
      predictions: "label" int [m], and predicted classes int [m] by name of the evaluation.
      classes: class names.
      path: PNG file to write.

    Returns:
      "matrix" or "pairs"; "" without a file if there are no valid predictions.
    """
    name = choose_evaluation(predictions)
    if not name or "label" not in predictions:
        return ""
    truth, predicted = (np.asarray(predictions[key], int) for key in ("label", name))
    if len(truth) != len(predicted) or not (truth >= 0).any():
        return ""
    size = int(max(truth.max(), predicted.max(), len(classes) - 1)) + 1
    counts = confusion_matrix(truth, predicted, size)
    pairs = worst_pairs(counts)
    if size > MAX_MATRIX and not pairs:
        return ""
    with matplotlib.rc_context(STYLE):
        if size <= MAX_MATRIX:
            _draw_matrix(counts, [label(class_name(i, classes), 14) for i in range(size)], path)
            return "matrix"
        _draw_pairs(pairs, classes, path)
        return "pairs"


def _draw_matrix(counts: np.ndarray, names: list[str], path: str | os.PathLike[str]) -> None:
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
        if text := f"{value:.0f}".removeprefix("0"):
            dark = value > (60 if i == j else 0.8 * worst)
            color = "white" if dark else INK
            ax.text(j, i, text, ha="center", va="center", color=color, size=8.5)
    rotated = max(map(len, names)) > 4
    ax.set_xticks(
        range(size), names, rotation=45 if rotated else 0, ha="right" if rotated else "center",
        rotation_mode="anchor" if rotated else "default",
    )  # fmt: skip
    ax.set_yticks(range(size), names)
    ax.set(xlabel="predicted class", ylabel="true class")
    _hide_frame(ax)
    ax.set_xticks(np.arange(size + 1) - 0.5, minor=True)
    ax.set_yticks(np.arange(size + 1) - 0.5, minor=True)
    ax.grid(which="minor", color=RULE, linewidth=0.8)
    ax.tick_params(which="both", length=0)
    save(figure, path)


def _draw_pairs(
    pairs: list[tuple[int, int, float]], classes: list[str], path: str | os.PathLike[str]
) -> None:
    names = [
        f"{label(class_name(i, classes), 28)}  →  {label(class_name(j, classes), 28)}"
        for i, j, _ in pairs
    ]
    figure = Figure(figsize=(8.4, 0.34 * len(pairs) + 0.8), layout="constrained")
    ax = figure.add_subplot()
    values = [100 * share for _, _, share in pairs]
    bars = ax.barh(range(len(pairs)), values, color=ORANGE, height=0.62)
    ax.bar_label(bars, fmt="%.0f", padding=4, color=INK, size=9)
    ax.set_yticks(range(len(pairs)), names, color=INK)
    ax.invert_yaxis()
    ax.set_xlim(0, 1.08 * max(values))
    ax.set_xlabel("per cent of the true class's images")
    _hide_frame(ax)
    save(figure, path)


def _hide_frame(ax: Axes) -> None:
    ax.grid(visible=False)
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
