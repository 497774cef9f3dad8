"""Curves of several runs in one figure."""

import math
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter

from ssl_jax.report import display_names
from ssl_jax.report.figures.style import LINES, STYLE, label, png
from ssl_jax.report.figures.training_curves import SMOOTH_FROM, running_mean
from ssl_jax.report.run_files import Run, metric_series
from ssl_jax.report.seed_groups import Group

DASHES = ("-", "--", ":")  # the next dash follows when all colours are used


def line_style(index: int) -> tuple[str, str]:
    """Returns the (colour, dash) of the group at `index`."""
    return LINES[index % len(LINES)], DASHES[index // len(LINES) % len(DASHES)]


def draw(groups: Sequence[Group], *, by: str) -> bytes:
    """Returns the curves as PNG; b"" if nothing is logged.

    Args:
      groups: groups of runs; each has one colour.
      by: horizontal axis: "step", or "images" (images seen, steps times batch).
    """
    panels = [
        (title, key, scale, members)
        for title, key, scale, members in _panels(groups)
        if _is_logged(groups, key, members)
    ]
    if not panels:
        return b""
    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(
            figsize=(11.8 / 3 * max(columns, 2), 2.9 * rows + 0.5), layout="constrained"
        )
        figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12)  # type: ignore[union-attr]
        handles: dict[int, Line2D] = {}
        for i, (title, key, scale, members) in enumerate(panels, 1):
            ax = figure.add_subplot(rows, columns, i)
            for j in members:
                if line := _draw_group(ax, groups[j], key, scale, by, line_style(j)):
                    handles.setdefault(j, line)
            ax.set_title(title)
            _format_axis(ax, by)
        order = sorted(handles)
        figure.legend(
            [handles[j] for j in order], [label(groups[j].name, 40) for j in order],
            loc="outside lower center", ncols=min(len(order), 4), fontsize=9.5, handlelength=1.8,
        )  # fmt: skip
        return png(figure)


def _panels(groups: Sequence[Group]) -> list[tuple[str, str, float, list[int]]]:
    """Returns (title, key, scale, indices of groups) for each plot.

    Each method has its own loss plot, because losses of different methods are not comparable.
    """
    everyone = list(range(len(groups)))
    by_method: dict[str, list[int]] = {}
    for i, group in enumerate(groups):
        by_method.setdefault(display_names.method_name(group.runs[0]).rstrip(","), []).append(i)
    one_method = len(by_method) == 1
    return [
        ("Online probe accuracy  (%)", "probe_accuracy", 100.0, everyone),
        ("Effective rank  (directions)", "effective_rank", 1.0, everyone),
        *(
            ("Loss" if one_method else f"Loss, {label(name)}", "loss", 1.0, members)
            for name, members in by_method.items()
        ),
    ]


def _is_logged(groups: Sequence[Group], key: str, members: Sequence[int]) -> bool:
    return any(len(metric_series(run, key)[0]) for i in members for run in groups[i].runs)


def _draw_group(
    ax: Axes, group: Group, key: str, scale: float, by: str, style: tuple[str, str]
) -> Line2D | None:
    """Draws each seed, and their mean at the steps they share; returns the line of the mean."""
    color, dash = style
    curves = [curve for run in group.runs if len((curve := _curve(run, key, scale, by))[0])]
    if not curves:
        return None
    if len(curves) > 1:
        for x, y in curves:
            ax.plot(x, y, dash, color=color, linewidth=0.9, alpha=0.4)
        x = np.array(sorted(set.intersection(*({*curve[0].tolist()} for curve in curves))))
        y = np.mean([curve[1][np.isin(curve[0], x)] for curve in curves], axis=0)
    else:
        x, y = curves[0]
    return ax.plot(x, y, dash if len(x) > 1 else "o", color=color)[0]


def _curve(run: Run, key: str, scale: float, by: str) -> tuple[np.ndarray, np.ndarray]:
    steps, values = metric_series(run, key)
    if len(values) > SMOOTH_FROM:
        values = running_mean(values, len(values) // 40)
    return steps * (run.batch_size if by == "images" else 1), values * scale


def _format_axis(ax: Axes, by: str) -> None:
    ax.set_xlabel("images seen" if by == "images" else "step")
    ax.xaxis.get_major_locator().set_params(nbins=5, integer=True)
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    ax.margins(y=0.08)
