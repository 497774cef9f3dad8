"""What was logged over training, as PNG files: the curves, and the health of the features."""

import math
import os
from collections.abc import Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from ssl_jax.report.files import Run, series
from ssl_jax.report.style import BLUE, ORANGE, STYLE, save

SMOOTH_FROM = 40  # logged steps
# Methods whose loss is the mean cross-entropy, in nats, of the positive among all candidates: by
# guessing it is ln(candidates). Others scale it, leave candidates out or add terms.
CROSS_ENTROPY = ("simclr", "simclr_v2", "moco")


class Panel(NamedTuple):
    """One plot."""

    key: str  # in metrics.jsonl
    title: str
    unit: str = ""
    noisy: bool = False  # draw a running mean over it
    from_zero: bool = True
    projections: str = ""  # key of the same measure taken on the projections
    note: str = ""  # for the caption


CURVES = (
    Panel("loss", "Loss", noisy=True, from_zero=False),
    Panel("contrastive_accuracy", "Contrastive accuracy", "%", noisy=True),
    Panel("probe_accuracy", "Online probe accuracy", "%", noisy=True),
    Panel("lr", "Learning rate"),
    Panel("grad_norm", "Gradient norm", noisy=True),
    Panel("images_per_second", "Throughput", "images / s"),
)
HEALTH = (
    Panel(
        "feature_std",
        "Standard deviation",
        "× √f",
        noisy=True,
        note="Standard deviation: 1 when they spread evenly over all directions, 0 when all "
        "are equal.",
    ),
    Panel(
        "effective_rank",
        "Effective rank",
        "directions",
        noisy=True,
        note="Effective rank: over how many directions they spread, however far.",
    ),
    Panel(
        "feature_alignment",
        "Alignment",
        "distance²",
        noisy=True,
        projections="alignment",
        note="Alignment: mean squared distance of two views of an image.",
    ),
    Panel(
        "feature_uniformity",
        "Uniformity",
        "log",
        noisy=True,
        projections="uniformity",
        note="Uniformity: log of the mean of exp(−2 distance²) over pairs of images; 0 when all "
        "are equal.",
    ),
    Panel(
        "target_distance",
        "Target distance",
        "relative",
        note="Target distance: of the target's parameters from the online ones.",
    ),
)


def shown(run: Run, panels: Sequence[Panel]) -> list[Panel]:
    """The panels for which something was logged."""
    return [panel for panel in panels if len(series(run, panel.key)[0])]


def draw(run: Run, panels: Sequence[Panel], path: str | os.PathLike[str]) -> bool:
    """Plots what was logged over training; False, and no file, when nothing was."""
    panels = shown(run, panels)
    if not panels:
        return False
    columns = 4 if len(panels) in (4, 7, 8) else min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(
            figsize=(11.8 if columns > 2 else 5.2 * columns, 2.7 * rows), layout="constrained"
        )
        figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12)  # type: ignore[union-attr]
        for i, panel in enumerate(panels, 1):
            _panel(figure.add_subplot(rows, columns, i), run, panel)
        save(figure, path)
    return True


def chance(run: Run, key: str) -> float | None:
    """Value of a metric when the positive is guessed among the candidates; None where unknown."""
    found = series(run, "contrastive_chance")[1]
    if not len(found):
        return None
    if key == "loss":
        return -math.log(found[-1]) if run.method in CROSS_ENTROPY else None
    return float(found[-1]) if key == "contrastive_accuracy" else None


def _panel(ax: Axes, run: Run, panel: Panel) -> None:
    scale = 100.0 if panel.unit == "%" else 1.0
    low, high = _line(ax, run, panel.key, panel.noisy, scale, BLUE, "features")
    if panel.projections and len(series(run, panel.projections)[0]):
        other = _line(ax, run, panel.projections, panel.noisy, scale, ORANGE, "projections")
        low, high = min(low, other[0]), max(high, other[1])
        ax.legend(fontsize=8.5, handlelength=1.2)
    if panel.from_zero:
        ax.set_ylim(min(1.12 * low, 0), max(1.12 * high, 1e-9 - 0.04 * low))
    if (level := chance(run, panel.key)) is not None:
        ax.axhline(level * scale, color=ORANGE, linewidth=1.3, linestyle=(0, (4, 3)))
        ax.annotate(
            f"chance {level * scale:.3g}", (1, level * scale), (-2, 4), color=ORANGE,
            xycoords=("axes fraction", "data"), textcoords="offset points", ha="right", size=8.5,
            path_effects=[withStroke(linewidth=3, foreground="white")],
        )  # fmt: skip
        ax.margins(y=0.14)
    ax.set_title(panel.title + (f"  ({panel.unit})" if panel.unit else ""))
    ax.set_xlabel("step")
    ax.xaxis.get_major_locator().set_params(integer=True, nbins=5)


def _line(
    ax: Axes, run: Run, key: str, noisy: bool, scale: float, color: str, label: str
) -> tuple[float, float]:
    """Plots a metric; returns its extremes."""
    steps, values = series(run, key)
    values = values * scale
    if len(values) < 3:
        ax.plot(steps, values, "o", color=color, label=label)
    elif noisy and len(values) > SMOOTH_FROM:
        ax.plot(steps, values, color=color, linewidth=1, alpha=0.35)
        ax.plot(steps, smooth(values, len(values) // 40), color=color, label=label)
    else:
        ax.plot(steps, values, color=color, label=label)
    return values.min(), values.max()


def smooth(values: np.ndarray, width: int) -> np.ndarray:
    """Centred running mean of [n] over 2 * width + 1 values, fewer at the ends."""
    kernel = np.ones(2 * width + 1)
    weight = np.convolve(np.ones(len(values)), kernel, mode="same")
    return np.convolve(values, kernel, mode="same") / weight
