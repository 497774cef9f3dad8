"""Accuracy against batch, length and learning-rate rule, as PNG files."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ssl_jax.report.groups import Mean, mean
from ssl_jax.report.overlay import COLORS
from ssl_jax.report.style import INK, MUTED, STYLE, label, png
from ssl_jax.study import axes
from ssl_jax.study.gather import Length
from ssl_jax.study.grid import spelled
from ssl_jax.study.points import Panel, Point, differences
from ssl_jax.study.table import EPOCHS, PUBLISHED

# A rule is told by its line and its marker, for colours tell lengths or batches.
LOOKS = {"linear": ("-", "o"), "sqrt": ("--", "s"), "constant": (":", "^")}
NUDGE = 0.04  # octaves: so that intervals of two rules do not lie on each other


def against_batch(panel: Panel, names: dict[str, str]) -> bytes:
    """A plot for every evaluation, a line for every length and rule; b"" of one batch."""
    names = {name: title for name, title in names.items() if _shown(panel, name)}
    if len(panel.batches) < 2 or not names:
        return b""
    with matplotlib.rc_context(STYLE):
        figure, plots = axes.grid(len(names))
        for ax, (name, title) in zip(plots, names.items(), strict=True):
            for i, length in enumerate(panel.lengths):
                for j, rule in enumerate(panel.rules):
                    points = [panel.point(batch, length, rule) for batch in panel.batches]
                    _line(ax, points, name, COLORS[i], rule, shift=_shift(j, panel))
            axes.octaves(ax, panel.batches, "Batch  (images)")
            _heights(ax, panel, name)
            ax.set_title(f"{label(title, 40)}  (%)")
        keys = {_length(length): COLORS[i] for i, length in enumerate(panel.lengths)}
        _legend(figure, keys, panel.rules)
        return png(figure)


def against_length(panel: Panel, name: str, title: str) -> bytes:
    """A plot for every rule, a line for every batch; b"" of one length."""
    if len(panel.lengths) < 2 or not _shown(panel, name):
        return b""
    with matplotlib.rc_context(STYLE):
        figure, plots = axes.grid(len(panel.rules), sharey=True)
        for ax, rule in zip(plots, panel.rules, strict=True):
            for i, batch in enumerate(panel.batches):
                points = [panel.point(batch, length, rule) for length in panel.lengths]
                shift = NUDGE * (i - (len(panel.batches) - 1) / 2) / 2
                _line(ax, points, name, COLORS[i], rule, shift=shift, by_length=True)
            unit = panel.lengths[0][0].capitalize()
            axes.octaves(ax, [length for _, length in panel.lengths], unit)
            _heights(ax, panel, name)
            ax.set_title(f"{label(title, 30)}, {rule} rule  (%)")
        keys = {f"batch {batch:,}": COLORS[i] for i, batch in enumerate(panel.batches)}
        _legend(figure, keys, [])
        return png(figure)


def rules(panel: Panel, name: str, title: str) -> bytes:
    """What the square-root rule gains over the linear one, beside the published gain."""
    found = {length: differences(panel, name, length) for length in panel.lengths}
    if not any(found.values()):
        return b""
    with matplotlib.rc_context(STYLE):
        figure, (ax, other) = axes.grid(2)
        for i, of in enumerate(found.values()):
            shift = 2 * NUDGE * (i - (len(found) - 1) / 2)
            _gains(ax, of, COLORS[i], shift)
        axes.octaves(ax, panel.batches, "Batch  (images)")
        _room(ax, [gain for of in found.values() for values in of.values() for gain in values])
        ax.set_title(f"sqrt less linear: {label(title, 30)}  (points)")
        keys = {_length(length): COLORS[i] for i, length in enumerate(found)}
        _legend(figure, keys, [])
        for i, epochs in enumerate(EPOCHS):
            gains = [root - linear for linear, root in (row[i] for row in PUBLISHED.values())]
            color, name = COLORS[i + 2], f"{epochs} epochs"
            other.plot(list(PUBLISHED), gains, "D-", ms=4.5, color=color, lw=1.5, label=name)
        other.legend(fontsize=9)
        axes.octaves(other, list(PUBLISHED), "Batch  (images)")
        other.set_title("sqrt less linear: SimCLR's table B.1  (points)")
        for each in (ax, other):
            each.axhline(0, color=MUTED, lw=1, zorder=1)
        return png(figure)


def _gains(ax: Axes, found: dict[int, list[float]], color: str, shift: float) -> None:
    """Every seed's difference, small, and their mean with its interval."""
    for batch, values in found.items():
        x = batch * 2**shift
        ax.plot([x * 2**0.05] * len(values), values, ".", ms=5, color=color, alpha=0.55)
        middle = mean(values)
        assert middle is not None
        ax.errorbar(
            x, middle.value, yerr=middle.half, fmt="D", ms=6, color=color, capsize=3, lw=1.6
        )


def _shown(panel: Panel, name: str) -> bool:
    return any(point.mean(name) for point in panel.points)


def _line(
    ax: Axes,
    points: Sequence[Point | None],
    name: str,
    color: str,
    rule: str,
    *,
    shift: float,
    by_length: bool = False,
) -> None:
    """Means with their intervals; where a seed diverged, a cross at the foot of the plot."""
    dash, marker = LOOKS[rule]
    there = [
        ((point.length[1] if by_length else point.batch) * 2**shift, point)
        for point in points
        if point
    ]
    means: list[tuple[float, Mean]] = [(x, m) for x, point in there if (m := point.mean(name))]
    if means:
        halves = [m.half if m.half is not None else np.nan for _, m in means]
        ax.errorbar(
            [x for x, _ in means], [m.value for _, m in means], yerr=halves,
            fmt=marker, ls=dash, color=color, ms=5.5, lw=1.8, capsize=3, elinewidth=1.2,
        )  # fmt: skip
    for x in (x for x, point in there if point.diverged):
        foot = ax.get_xaxis_transform()
        ax.plot(x, 0.02, "x", ms=8, mew=2, color=color, clip_on=False, transform=foot)


def _heights(ax: Axes, panel: Panel, name: str) -> None:
    values = [value for point in panel.points for value in point.by_seed(name).values()]
    _room(ax, values)
    ax.set_ylim(top=min(ax.get_ylim()[1], 101.0))


def _room(ax: Axes, values: Sequence[float]) -> None:
    """As high as the seeds' values ask for: the interval of two seeds is often far wider."""
    room = max(0.35 * (max(values) - min(values)), 0.5)
    ax.set_ylim(min(values) - room, max(values) + room)


def _shift(index: int, panel: Panel) -> float:
    return NUDGE * (index - (len(panel.rules) - 1) / 2)


def _length(length: Length) -> str:
    unit, value = length
    return f"{spelled(value)} {unit}"


def _handles(keys: dict[str, str], rules: Sequence[str] = ()) -> list[Line2D]:
    found = [Line2D([], [], color=color, lw=3, label=name) for name, color in keys.items()]
    for rule in rules:
        dash, marker = LOOKS[rule]
        found.append(Line2D([], [], color=INK, ls=dash, marker=marker, label=f"{rule} rule"))
    return found


def _legend(figure: Figure, keys: dict[str, str], rules: Sequence[str]) -> None:
    handles = _handles(keys, rules if len(rules) > 1 else [])
    figure.legend(
        handles=handles, loc="outside lower center", ncols=min(len(handles), 6), fontsize=9.5,
        handlelength=2.6,
    )  # fmt: skip
