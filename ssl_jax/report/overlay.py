"""Curves of several runs in one picture."""

import math
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter

from ssl_jax.report import evaluation
from ssl_jax.report.curves import SMOOTH_FROM, smooth
from ssl_jax.report.files import Run, series
from ssl_jax.report.groups import Group
from ssl_jax.report.style import BLUE, ORANGE, STYLE, label, png

COLORS = (
    *(BLUE, ORANGE, "#117733", "#aa4499", "#ddaa33", "#332288"),
    *("#44aa99", "#882255", "#88ccee", "#777777", "#999933", "#cc6677"),
)
DASHES = ("-", "--", ":")  # by round of colours


def style(index: int) -> tuple[str, str]:
    """(colour, dash) of a group."""
    return COLORS[index % len(COLORS)], DASHES[index // len(COLORS) % len(DASHES)]


def draw(groups: Sequence[Group], *, by: str) -> bytes:
    """The curves as PNG, b"" when nothing was logged.

    Args:
      by: "step", or "images": seen so far, steps times batch.
    """
    panels = [(t, k, s, m) for t, k, s, m in _panels(groups) if _logged(groups, k, m)]
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
                if line := _lines(ax, groups[j], key, scale, by, style(j)):
                    handles.setdefault(j, line)
            ax.set_title(title)
            _axis(ax, by)
        order = sorted(handles)
        figure.legend(
            [handles[j] for j in order], [label(groups[j].name, 40) for j in order],
            loc="outside lower center", ncols=min(len(order), 4), fontsize=9.5, handlelength=1.8,
        )  # fmt: skip
        return png(figure)


def _panels(groups: Sequence[Group]) -> list[tuple[str, str, float, list[int]]]:
    """(title, key, scale, which groups): losses of different methods are no one quantity."""
    everyone = list(range(len(groups)))
    losses: dict[str, list[int]] = {}
    for i, members in enumerate(groups):
        losses.setdefault(evaluation.method(members.runs[0]).rstrip(","), []).append(i)
    alone = len(losses) == 1
    return [
        ("Online probe accuracy  (%)", "probe_accuracy", 100.0, everyone),
        ("Effective rank  (directions)", "effective_rank", 1.0, everyone),
        *(
            ("Loss" if alone else f"Loss, {label(name)}", "loss", 1.0, members)
            for name, members in losses.items()
        ),
    ]


def _logged(groups: Sequence[Group], key: str, members: Sequence[int]) -> bool:
    return any(len(series(run, key)[0]) for i in members for run in groups[i].runs)


def _lines(
    ax: Axes, group: Group, key: str, scale: float, by: str, look: tuple[str, str]
) -> Line2D | None:
    """Draws every seed, and their mean at the steps that all have; returns the mean's line."""
    color, dash = look
    curves = [c for run in group.runs if len((c := _curve(run, key, scale, by))[0])]
    if not curves:
        return None
    if len(curves) > 1:
        for x, y in curves:
            ax.plot(x, y, dash, color=color, linewidth=0.9, alpha=0.4)
        x = np.array(sorted(set.intersection(*({*c[0].tolist()} for c in curves))))
        y = np.mean([c[1][np.isin(c[0], x)] for c in curves], axis=0)
    else:
        x, y = curves[0]
    return ax.plot(x, y, dash if len(x) > 1 else "o", color=color)[0]


def _curve(run: Run, key: str, scale: float, by: str) -> tuple[np.ndarray, np.ndarray]:
    steps, values = series(run, key)
    if len(values) > SMOOTH_FROM:
        values = smooth(values, len(values) // 40)
    return steps * (run.batch_size if by == "images" else 1), values * scale


def _axis(ax: Axes, by: str) -> None:
    ax.set_xlabel("images seen" if by == "images" else "step")
    ax.xaxis.get_major_locator().set_params(nbins=5, integer=True)
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    ax.margins(y=0.08)
