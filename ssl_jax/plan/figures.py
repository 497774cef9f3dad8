"""Charts of a plan and of a sweep, as PNG files."""

from collections.abc import Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from ssl_jax.plan import formatting, text_report
from ssl_jax.plan.program import Memory
from ssl_jax.plan.roofline import Forecast
from ssl_jax.report.figures.style import BLUE, CLASSES, INK, MARKERS, ORANGE, STYLE, label, png

WIDTH = 11.0  # inches
COLOURS = {
    **{"parameters": "#332288", "optimizer": "#0072b2", "extra": "#88ccee"},
    **{"batch": "#117733", "activations": "#ddaa33", "loss": "#cc6677", "padding": "#999933"},
}


def memory_bar(memory: Memory) -> bytes:
    """Draws the parts of one device's memory against its limit.

    If they fill less than a tenth of the device, the axis ends soon after them.
    """
    used, limit = memory.total, memory.limit
    end = 1.02 * max(used, limit) if used > limit / 10 else 1.5 * used
    unit, factor = _memory_unit(end)
    with matplotlib.rc_context(STYLE):
        figure, ax = _axes(height=1.9, bottom=0.30, top=0.74)
        left = 0.0
        for name, colour in COLOURS.items():
            part = getattr(memory, name) / factor
            if part:
                ax.barh(0, part, left=left, color=colour, height=0.6, label=name)
            left += part
        colour, share = ORANGE if memory.headroom < 0 else INK, ""
        if limit < end:
            ax.axvline(limit / factor, color=colour, linewidth=2)
        else:
            share = f", of which this is {formatting.percent(used / limit)}"
        ax.text(min(limit, end) / factor, 0.42,
                f"a device has {formatting.size(limit)}{share}  ", va="bottom", ha="right",
                color=colour, size=9)  # fmt: skip
        ax.set(xlim=(0, end / factor), ylim=(-0.4, 0.7), yticks=[])
        ax.set_xlabel(f"{unit} of one device")
        ax.grid(axis="y", visible=False)
        figure.legend(loc="upper left", ncols=7, bbox_to_anchor=(0.0, 1.0), fontsize=9)
        return png(figure)


def step_bars(forecast: Forecast) -> bytes:
    """Draws the time of each resource, then the predicted step with its bounds."""
    names = forecast.resources
    rows = [(names.compute, forecast.compute, forecast.compute_bound),
            (names.memory, forecast.hbm, forecast.hbm_bound),
            (names.inside, forecast.inside, None)]  # fmt: skip
    if forecast.between:
        rows.append((names.between, forecast.between, None))
    unit, factor = _time_unit(forecast.slowest)
    with matplotlib.rc_context(STYLE):
        figure, ax = _axes(height=0.42 * (len(rows) + 1) + 1.1, left=0.09, bottom=0.62, inches=True)
        for y, (_, reached, bound) in enumerate(rows):
            ax.barh(
                y, reached * factor, color="#a9c8de" if bound is not None else ORANGE, height=0.62
            )
            if bound is not None:
                ax.barh(y, bound * factor, color=BLUE, height=0.62)
            ax.text(reached * factor, y, f"  {formatting.seconds(reached)}", va="center", size=9)
        _prediction_bar(ax, len(rows), forecast, factor)
        ax.set_yticks(range(len(rows) + 1), [*(name for name, *_ in rows), "step"], color=INK)
        ax.invert_yaxis()
        ax.set(xlim=(0, 1.3 * forecast.slowest * factor), xlabel=unit)
        ax.grid(axis="y", visible=False)
        return png(figure)


def _prediction_bar(ax: Axes, y: int, forecast: Forecast, factor: float) -> None:
    """Draws the step as stacked parts, with a line between its bounds."""
    left = 0.0
    local = max(forecast.compute, forecast.hbm)
    for seconds, colour in (
        (local, BLUE),
        (forecast.inside, ORANGE),
        (forecast.between, "#cc6677"),
    ):
        ax.barh(y, seconds * factor, left=left, color=colour, height=0.62)
        left += seconds * factor
    ends = (forecast.fastest * factor, forecast.slowest * factor)
    ax.plot(ends, (y, y), color=INK, linewidth=1.2, marker="|", markersize=11)
    step, low, high = map(formatting.seconds, (forecast.step, forecast.fastest, forecast.slowest))
    ax.text(ends[1], y, f"  {step}  ({low} to {high})", va="center", size=9, weight="bold")


def collective_bars(forecast: Forecast) -> bytes | None:
    """Draws the time of collectives in one step by kind and group; None without collectives."""
    groups = text_report.group_collectives(forecast.collectives)[: text_report.MAX_COLLECTIVES]
    if not groups:
        return None
    unit, factor = _time_unit(sum(t.seconds for t in groups[0]))
    with matplotlib.rc_context(STYLE):
        figure, ax = _axes(height=0.42 * len(groups) + 0.9, left=0.4, bottom=0.62, inches=True)
        for y, group in enumerate(groups):
            inside = sum(t.inside for t in group) * factor
            between = sum(t.between for t in group) * factor
            ax.barh(y, inside, color=ORANGE, height=0.62)
            ax.barh(y, between, left=inside, color="#cc6677", height=0.62)
            total = formatting.seconds(sum(t.seconds for t in group))
            ax.text(inside + between, y, f"  {total}", va="center", size=9)
        labels = [_label(text_report.collective_row(group)) for group in groups]
        ax.set_yticks(range(len(groups)), labels, color=INK)
        ax.invert_yaxis()
        longest = sum(t.seconds for t in groups[0]) * factor
        ax.set(xlim=(0, 1.15 * longest), xlabel=f"{unit} in one step")
        ax.grid(axis="y", visible=False)
        return png(figure)


def _label(row: Sequence[str]) -> str:
    return f"{row[1]} × {row[0]}, {row[2]}, {row[3]} devices ({row[5]})"


def cost_scatter(points: Sequence[tuple[str, float, float, bool]], price: str) -> bytes:
    """Draws cost against time, both on a log scale.

    Args:
      points: (topology, hours, cost, True if cheapest) of the plans that fit.
      price: label of the cost axis.
    """
    names = list(dict.fromkeys(name for name, *_ in points))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 4.6))
        ax = figure.add_axes((0.08, 0.13, 0.66, 0.82))
        for i, name in enumerate(names):
            own = [(hours, cost) for other, hours, cost, _ in points if other == name]
            look = {"color": CLASSES[i % len(CLASSES)], "marker": MARKERS[i % len(MARKERS)]}
            ax.scatter(*zip(*own, strict=True), s=46, label=label(name), **look)
        for _, hours, cost, cheapest in points:
            if cheapest:
                ring = {"facecolors": "none", "edgecolors": INK, "linewidths": 1.4}
                ax.scatter([hours], [cost], s=210, label="cheapest", **ring)
        ax.set(xscale="log", yscale="log", xlabel="hours of the run", ylabel=price)
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter(lambda value, _: f"{value:,.6g}")
            axis.set_minor_locator(NullLocator())
        if all(len({point[i] for point in points}) == 1 for i in (1, 2)):
            ax.margins(0.3)
        figure.legend(loc="upper left", bbox_to_anchor=(0.75, 0.96), fontsize=9, labelcolor=INK)
        return png(figure)


def _axes(
    *, height: float, left: float = 0.02, bottom: float, top: float = 0.97, inches: bool = False
) -> tuple[Figure, Axes]:
    """Returns a figure of the page's width with axes; `bottom` in inches or as a fraction."""
    figure = Figure(figsize=(WIDTH, height))
    low = bottom / height if inches else bottom
    return figure, figure.add_axes((left, low, 0.98 - left, top - low))


def _memory_unit(largest: float) -> tuple[str, int]:
    """Returns a unit of memory and its number of bytes."""
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20)):
        if largest >= factor:
            return unit, factor
    return "KiB", 2**10


def _time_unit(largest: float) -> tuple[str, float]:
    """Returns a unit of time and its number per second."""
    for unit, factor in (("seconds", 1.0), ("milliseconds", 1e3)):
        if largest * factor >= 1:
            return unit, factor
    return "microseconds", 1e6
