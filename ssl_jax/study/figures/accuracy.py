"""Figures of accuracy against batch size, training length and learning-rate rule."""

from collections.abc import Iterable, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ssl_jax.report.figures.style import INK, LINES, MUTED, STYLE, label, png
from ssl_jax.report.seed_groups import Mean, mean
from ssl_jax.study.accuracy_table import EPOCHS, PUBLISHED
from ssl_jax.study.figures.axes import line_colors, plot_grid, set_octaves
from ssl_jax.study.grid import format_value
from ssl_jax.study.results import Length
from ssl_jax.study.seed_means import Panel, Point, rule_differences

# (dash, marker) of each rule; colours stand for lengths or batches.
RULE_STYLES = {"linear": ("-", "o"), "sqrt": ("--", "s"), "constant": (":", "^")}
OTHER_RULE = ("-.", "D")  # a rule of another version
SHIFT = 0.04  # octaves by which points are moved apart, so that their intervals do not overlap


def against_batch(panel: Panel, names: dict[str, str]) -> bytes:
    """Draws accuracy against batch size: a plot per evaluation, a line per length and rule.

    Args:
      panel: accuracies to draw.
      names: {file name of the evaluation: title}.

    Returns:
      PNG; b"" if there is only one batch size or no accuracy.
    """
    names = {name: title for name, title in names.items() if _has_accuracy(panel, name)}
    if len(panel.batches) < 2 or not names:
        return b""
    with matplotlib.rc_context(STYLE):
        figure, plots = plot_grid(len(names))
        for ax, (name, title) in zip(plots, names.items(), strict=True):
            for length, color in zip(panel.lengths, line_colors(len(panel.lengths)), strict=True):
                for j, rule in enumerate(panel.rules):
                    points = [panel.point(batch, length, rule) for batch in panel.batches]
                    shift = SHIFT * (j - (len(panel.rules) - 1) / 2)
                    _draw_line(ax, points, name, color, rule, shift=shift)
            set_octaves(ax, panel.batches, "Batch  (images)")
            _set_height(ax, panel, name)
            ax.set_title(f"{label(title, 40)}  (%)")
        _draw_legend(figure, map(_length_text, panel.lengths), panel.rules)
        return png(figure)


def against_length(panel: Panel, name: str, title: str) -> bytes:
    """Draws accuracy against training length: a plot per rule, a line per batch size.

    Args:
      panel: accuracies to draw.
      name: file name of the evaluation without ".json".
      title: title of the evaluation.

    Returns:
      PNG; b"" if there is only one length or no accuracy.
    """
    if len(panel.lengths) < 2 or not _has_accuracy(panel, name):
        return b""
    with matplotlib.rc_context(STYLE):
        figure, plots = plot_grid(len(panel.rules), sharey=True)
        for ax, rule in zip(plots, panel.rules, strict=True):
            colors = line_colors(len(panel.batches))
            for i, (batch, color) in enumerate(zip(panel.batches, colors, strict=True)):
                points = [panel.point(batch, length, rule) for length in panel.lengths]
                shift = SHIFT * (i - (len(panel.batches) - 1) / 2) / 2
                _draw_line(ax, points, name, color, rule, shift=shift, by_length=True)
            unit = panel.lengths[0][0].capitalize()
            set_octaves(ax, [length for _, length in panel.lengths], unit)
            _set_height(ax, panel, name)
            ax.set_title(f"{label(title, 30)}, {rule} rule  (%)")
        _draw_legend(figure, [f"batch {batch:,}" for batch in panel.batches], [])
        return png(figure)


def rule_gains(panel: Panel, name: str, title: str, *, with_published: bool) -> bytes:
    """Draws the accuracy by the sqrt rule minus that by the linear rule.

    Args:
      panel: accuracies to compare.
      name: file name of the evaluation without ".json".
      title: title of the evaluation.
      with_published: draw the published differences beside it.

    Returns:
      PNG; b"" if no batch size has both rules with different rates.
    """
    gains = {length: rule_differences(panel, name, length) for length in panel.lengths}
    if not any(gains.values()):
        return b""
    with matplotlib.rc_context(STYLE):
        figure, (ax, *others) = plot_grid(2 if with_published else 1)
        colors = line_colors(len(gains))
        for i, (by_batch, color) in enumerate(zip(gains.values(), colors, strict=True)):
            shift = 2 * SHIFT * (i - (len(gains) - 1) / 2)
            _draw_gains(ax, by_batch, color, shift)
        set_octaves(ax, panel.batches, "Batch  (images)")
        every_gain = [
            gain for by_batch in gains.values() for values in by_batch.values() for gain in values
        ]
        _fit_height(ax, every_gain)
        ax.set_title(f"sqrt minus linear: {label(title, 30)}  (points)")
        _draw_legend(figure, map(_length_text, gains), [])
        for published in others:
            _draw_published_gains(published)
        for each in (ax, *others):
            each.axhline(0, color=MUTED, lw=1, zorder=1)
        return png(figure)


def _draw_published_gains(ax: Axes) -> None:
    for i, epochs in enumerate(EPOCHS):
        differences = [root - linear for linear, root in (row[i] for row in PUBLISHED.values())]
        look = {"ms": 4.5, "color": LINES[i + 2], "lw": 1.5, "label": f"{epochs} epochs"}
        ax.plot(list(PUBLISHED), differences, "D-", **look)
    ax.legend(fontsize=9)
    set_octaves(ax, list(PUBLISHED), "Batch  (images)")
    ax.set_title("sqrt minus linear: SimCLR's table B.1  (points)")


def _draw_gains(ax: Axes, by_batch: dict[int, list[float]], color: str, shift: float) -> None:
    """Draws each seed's difference as a dot, and their mean with its interval as a diamond."""
    for batch, values in by_batch.items():
        x = batch * 2**shift
        ax.plot([x * 2**0.05] * len(values), values, ".", ms=5, color=color, alpha=0.55)
        center = mean(values)
        assert center is not None
        ax.errorbar(
            x, center.value, yerr=center.half, fmt="D", ms=6, color=color, capsize=3, lw=1.6
        )


def _has_accuracy(panel: Panel, name: str) -> bool:
    return any(point.mean(name) for point in panel.points)


def _draw_line(
    ax: Axes,
    points: Sequence[Point | None],
    name: str,
    color: str,
    rule: str,
    *,
    shift: float,
    by_length: bool = False,
) -> None:
    """Draws means with intervals; a cross at the bottom of the plot marks diverged seeds."""
    dash, marker = RULE_STYLES.get(rule, OTHER_RULE)
    placed = [
        ((point.length[1] if by_length else point.batch) * 2**shift, point)
        for point in points
        if point
    ]
    means: list[tuple[float, Mean]] = [(x, m) for x, point in placed if (m := point.mean(name))]
    if means:
        halves = [m.half if m.half is not None else np.nan for _, m in means]
        ax.errorbar(
            [x for x, _ in means], [m.value for _, m in means], yerr=halves,
            fmt=marker, ls=dash, color=color, ms=5.5, lw=1.8, capsize=3, elinewidth=1.2,
        )  # fmt: skip
    for x in (x for x, point in placed if point.diverged):
        bottom = ax.get_xaxis_transform()
        ax.plot(x, 0.02, "x", ms=8, mew=2, color=color, clip_on=False, transform=bottom)


def _set_height(ax: Axes, panel: Panel, name: str) -> None:
    values = [value for point in panel.points for value in point.by_seed(name).values()]
    _fit_height(ax, values)
    ax.set_ylim(top=min(ax.get_ylim()[1], 101.0))


def _fit_height(ax: Axes, values: Sequence[float]) -> None:
    """Fits the axis to the seeds' values, because the interval of two seeds is often far wider."""
    margin = max(0.35 * (max(values) - min(values)), 0.5)
    ax.set_ylim(min(values) - margin, max(values) + margin)


def _length_text(length: Length) -> str:
    unit, value = length
    return f"{format_value(value)} {unit}"


def _draw_legend(figure: Figure, lines: Iterable[str], rules: Sequence[str]) -> None:
    """Draws a legend of lines, named in the order of their colours, and of rules if several."""
    names = list(lines)
    handles = [
        Line2D([], [], color=color, lw=3, label=name)
        for name, color in zip(names, line_colors(len(names)), strict=True)
    ]
    for rule in rules if len(rules) > 1 else []:
        dash, marker = RULE_STYLES.get(rule, OTHER_RULE)
        handles.append(Line2D([], [], color=INK, ls=dash, marker=marker, label=f"{rule} rule"))
    figure.legend(
        handles=handles, loc="outside lower center", ncols=min(len(handles), 6), fontsize=9.5,
        handlelength=2.6,
    )  # fmt: skip
