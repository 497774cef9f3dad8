"""Curves of a run's logged metrics: training, and signals of collapsing features."""

import math
import os
from collections.abc import Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from ssl_jax.jobs.json_files import is_number
from ssl_jax.report.figures.style import BLUE, ORANGE, STYLE, save
from ssl_jax.report.run_files import Run, metric_series
from ssl_jax.rundir.metrics import CHANCE

SMOOTH_FROM = 40  # logged steps
# Methods whose loss is the mean cross-entropy, in nats, of the positive among all candidates, times
# method.scale: by guessing it is scale * ln(candidates). Others leave candidates out or add terms.
# SimCLR's other losses have the same value by guessing, but for the decoupled loss.
CROSS_ENTROPY = ("simclr", "simclr_v2", "moco")

# Methods whose loss does not show progress, and why.
LOSS_NOTES = {
    "rbm": "The loss is a difference of free energies, near 0 at the start and at the end: it does "
    "not show progress. Watch the reconstruction error and the probe. ",
    "denoising": "The loss of a stack changes its scale whenever the next layer starts to learn. "
    "Watch the reconstruction error and the probe. ",
    "dino": "The target of the loss is the teacher, which changes with the student: the loss can "
    "rise while the features improve. Watch the probe. ",
    "byol": "The target of the loss changes with the network, and the loss is lowest if all "
    "features are equal: a low loss does not show progress. Watch the probe. ",
    "simsiam": "The loss is lowest, −1, if all features are equal: a low loss does not show "
    "progress. Watch the probe. ",
}


class Panel(NamedTuple):
    """Plot of one metric.

    Attributes:
      key: key of the metric in metrics.jsonl.
      title: title above the plot.
      unit: unit of the values, shown in the title; "%" multiplies fractions by 100, and "{noun}" is
        the word for an example.
      noisy: draw a running mean over the logged values.
      from_zero: the vertical axis includes 0.
      projections: key of the same measure taken on the projections.
      note: sentence for the caption.
    """

    key: str
    title: str
    unit: str = ""
    noisy: bool = False
    from_zero: bool = True
    projections: str = ""
    note: str = ""


TRAINING = (
    Panel("loss", "Loss", noisy=True, from_zero=False),
    Panel("contrastive_accuracy", "Contrastive accuracy", "%", noisy=True),
    Panel("pretext_accuracy", "Accuracy of the pretext task", "%", noisy=True),
    Panel("pretext_error", "Error of the pretext task", noisy=True),
    Panel("reconstruction_error", "Reconstruction error", noisy=True),
    Panel("kl", "KL divergence", "nats", noisy=True),
    Panel("probe_accuracy", "Online probe accuracy", "%", noisy=True),
    Panel("lr", "Learning rate"),
    Panel("grad_norm", "Gradient norm", noisy=True),
    Panel("images_per_second", "Throughput", "{noun}s / s"),
)
COLLAPSE = (
    Panel(
        "feature_std",
        "Standard deviation",
        "× √f",
        noisy=True,
        note="Standard deviation: 1 when the features spread evenly over all directions, 0 when "
        "all are equal.",
    ),
    Panel(
        "effective_rank",
        "Effective rank",
        "directions",
        noisy=True,
        note="Effective rank: number of directions over which the features spread, whatever the "
        "distance.",
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
        note="Target distance: relative distance of the target network's parameters from the "
        "online network's.",
    ),
)


def logged_panels(run: Run, panels: Sequence[Panel]) -> list[Panel]:
    """Selects the panels whose metric the run has logged."""
    return [panel for panel in panels if len(metric_series(run, panel.key)[0])]


def draw(run: Run, panels: Sequence[Panel], path: str | os.PathLike[str]) -> bool:
    """Plots logged metrics over steps; returns False and writes no file if none is logged."""
    panels = logged_panels(run, panels)
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
            _draw_panel(figure.add_subplot(rows, columns, i), run, panel)
        save(figure, path)
    return True


def chance_level(run: Run, panel: Panel) -> float | None:
    """Returns the value of a panel's metric that a guess reaches; None if it is unknown.

    The method logs the value under the key `CHANCE[panel.key]`. That of the loss is the
    cross-entropy of guessing the positive among the candidates of a contrastive method.
    """
    if panel.key == "loss":
        return _loss_of_guessing(run)
    if panel.key not in CHANCE:
        return None
    logged = metric_series(run, CHANCE[panel.key])[1]
    return float(logged[-1]) if len(logged) and logged[-1] > 0 else None


def chance_levels(run: Run) -> dict[str, float]:
    """Returns {key: value of a guess} of the training panels for which it is known."""
    levels = {panel.key: chance_level(run, panel) for panel in TRAINING}
    return {key: level for key, level in levels.items() if level is not None}


def _loss_of_guessing(run: Run) -> float | None:
    chance = metric_series(run, "contrastive_chance")[1]
    if run.method not in CROSS_ENTROPY or not len(chance) or not 0 < chance[-1] <= 1:
        return None
    # The decoupled loss of SimCLR leaves the positive out of the candidates.
    candidates = 1 / chance[-1] - (run.config.get("method", {}).get("loss") == "decoupled")
    return loss_scale(run) * math.log(candidates) if candidates > 0 else None


def loss_scale(run: Run) -> float:
    """Returns the factor of the logged loss that the run's config sets."""
    scale = run.config.get("method", {}).get("scale", 1.0)
    return scale if is_number(scale) else 1.0


def _draw_panel(ax: Axes, run: Run, panel: Panel) -> None:
    scale = 100.0 if panel.unit == "%" else 1.0
    low, high = _draw_line(ax, run, panel.key, panel.noisy, scale, BLUE, "features")
    if panel.projections and len(metric_series(run, panel.projections)[0]):
        other = _draw_line(ax, run, panel.projections, panel.noisy, scale, ORANGE, "projections")
        low, high = min(low, other[0]), max(high, other[1])
        ax.legend(fontsize=8.5, handlelength=1.2)
    level = chance_level(run, panel)
    if panel.from_zero:
        high = max(high, scale * (level or 0))  # the axis shows the level, also if all values are 0
        ax.set_ylim(min(1.12 * low, 0), max(1.12 * high, -0.04 * low) or 1)
    if level is not None:
        ax.axhline(level * scale, color=ORANGE, linewidth=1.3, linestyle=(0, (4, 3)))
        ax.annotate(
            f"chance {level * scale:.3g}", (1, level * scale), (-2, 4), color=ORANGE,
            xycoords=("axes fraction", "data"), textcoords="offset points", ha="right", size=8.5,
            path_effects=[withStroke(linewidth=3, foreground="white")],
        )  # fmt: skip
        ax.margins(y=0.14)
    unit = panel.unit.format(noun=run.noun)
    ax.set_title(panel.title + (f"  ({unit})" if unit else ""))
    ax.set_xlabel("step")
    ax.xaxis.get_major_locator().set_params(integer=True, nbins=5)


def _draw_line(
    ax: Axes, run: Run, key: str, noisy: bool, scale: float, color: str, label: str
) -> tuple[float, float]:
    """Plots a metric; returns its smallest and largest value."""
    steps, values = metric_series(run, key)
    values = values * scale
    if len(values) < 3:
        ax.plot(steps, values, "o", color=color, label=label)
    elif noisy and len(values) > SMOOTH_FROM:
        ax.plot(steps, values, color=color, linewidth=1, alpha=0.35)
        ax.plot(steps, running_mean(values, len(values) // 40), color=color, label=label)
    else:
        ax.plot(steps, values, color=color, label=label)
    return values.min(), values.max()


def running_mean(values: np.ndarray, width: int) -> np.ndarray:
    """Computes the centred mean over 2 * width + 1 values, fewer at the ends: [n] -> [n]."""
    kernel = np.ones(2 * width + 1)
    weight = np.convolve(np.ones(len(values)), kernel, mode="same")
    return np.convolve(values, kernel, mode="same") / weight
