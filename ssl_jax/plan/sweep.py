"""Many plans of one training side by side, and the cheapest that fits."""

import itertools
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from ml_collections import ConfigDict

from ssl_jax import config as configuration
from ssl_jax.errors import BAD_CONFIG, Fault
from ssl_jax.plan import figures, formatting, result, text_report
from ssl_jax.plan.html_report import table
from ssl_jax.plan.program import Topology
from ssl_jax.plan.result import Plan
from ssl_jax.report.html_elements import document, figure, header, note, section

Planner = Callable[[ConfigDict, Topology, pathlib.Path], Plan]


class Point(NamedTuple):
    """One training on one topology.

    Attributes:
      topology: its name; `batch_size`, `microbatch`, `fsdp` of the config.
      plan: None where none could be made.
      reason: then, why.
    """

    topology: str
    batch_size: int
    microbatch: int
    fsdp: int
    plan: Plan | None
    reason: str

    @property
    def fits(self) -> bool:
        """Whether it can be trained so."""
        return self.plan is not None and result.verdict(self.plan.program).code == 0

    @property
    def chip(self) -> str:
        """The chip's name, as prices name it."""
        return self.topology.split(":")[0]


def points(
    config: ConfigDict,
    topologies: Iterable[Topology],
    *,
    batches: Sequence[int],
    microbatches: Sequence[int],
    fsdp: Sequence[int],
    make: Planner,
    folder: pathlib.Path,
) -> list[Point]:
    """Every combination, one after the other, each in a folder of its own.

    Args:
      batches, microbatches, fsdp: values to try; empty: the config's.
      make: compiles and plans one, raising Fault where it cannot.
    """
    tried = itertools.product(
        topologies,
        batches or [config.train.batch_size],
        microbatches or [config.train.microbatch],
        fsdp or [config.parallel.fsdp],
    )
    found = []
    for topology, batch, microbatch, parts in tried:
        changed = config.copy_and_resolve_references()
        changed.train.update(batch_size=batch, microbatch=microbatch)
        changed.parallel.fsdp = parts
        where = f"{topology.name}-b{batch}-m{microbatch}-f{parts}".replace(":", "-")
        plan, reason = _try(make, changed, topology, folder / where)
        point = Point(topology.name, batch, microbatch, parts, plan, reason)
        print(f"{where}: {result.verdict(plan.program).sentence if plan else reason}", flush=True)
        found.append(point)
    return found


def _try(
    make: Planner, config: ConfigDict, topology: Topology, folder: pathlib.Path
) -> tuple[Plan | None, str]:
    """A plan, or why there is none: a point that cannot be does not end the sweep."""
    try:
        if wrong := configuration.problems(config):
            raise Fault(wrong[0], BAD_CONFIG)
        folder.mkdir(parents=True, exist_ok=True)
        return make(config, topology, folder), ""
    except Fault as fault:
        return None, " ".join(str(fault).split())


def cost(point: Point, prices: Mapping[str, float]) -> float:
    """Chip-hours, or what they cost where the prices of chip-hours are told."""
    assert point.plan is not None
    hours = point.plan.totals.chip_hours
    return hours * prices[point.chip] if prices else hours


def cheapest(found: Iterable[Point], prices: Mapping[str, float]) -> Point | None:
    """Of those that fit, the one that costs least; None where nothing fits."""
    return min((p for p in found if p.fits), key=lambda p: cost(p, prices), default=None)


def rows(found: Sequence[Point], prices: Mapping[str, float]) -> list[tuple[str, ...]]:
    """The table, with its head; what fits first, the cheapest at the top."""
    head = ("topology", "chips", "batch", "micro-batch", "fsdp", "memory", "step", "binds",
            "images/s", "time", "chip-hours", *(["cost"] if prices else []), "")  # fmt: skip
    fitting = sorted((p for p in found if p.fits), key=lambda p: cost(p, prices))
    best = fitting[0] if fitting else None
    return [head, *(_row(p, prices, best) for p in [*fitting, *(p for p in found if not p.fits)])]


def _row(point: Point, prices: Mapping[str, float], best: Point | None) -> tuple[str, ...]:
    config = (f"{point.batch_size:,}", f"{point.microbatch:,}" if point.microbatch else "–",
              str(point.fsdp))  # fmt: skip
    if point.plan is None:
        blank = ("",) * (7 if prices else 6)
        return (point.topology, "", *config, *blank, "no plan")
    plan = point.plan
    memory, totals = plan.program.memory, plan.totals
    found = result.verdict(plan.program)
    word = found.sentence.split(":")[0].lower() if found.code else ""
    told = (
        formatting.seconds(plan.forecast.step),
        plan.forecast.binds,
        formatting.count(plan.forecast.images_per_second),
        formatting.duration(totals.seconds),
        formatting.hours(totals.chip_hours),
        *([f"{cost(point, prices):,.2f}"] if prices else []),
    )
    return (
        point.topology,
        f"{plan.program.topology.chips:,}",
        *config,
        f"{formatting.size(memory.total)} of {formatting.size(memory.limit)}",
        *(("",) * len(told) if plan.program.out_of_memory else told),
        "cheapest" if point is best else word,
    )


def sentence(found: Sequence[Point], prices: Mapping[str, float]) -> str:
    """Which is the cheapest that fits."""
    best = cheapest(found, prices)
    if best is None:
        return "Nothing fits."
    told = f"Cheapest that fits: {best.topology}, batch {best.batch_size:,}"
    told += f", micro-batch {best.microbatch:,}" if best.microbatch else ""
    told += f", fsdp {best.fsdp}" if best.fsdp > 1 else ""
    assert best.plan is not None
    hours = best.plan.totals.chip_hours
    told += (
        f": {formatting.hours(hours)} chip-hours in {formatting.duration(best.plan.totals.seconds)}"
    )
    return told + (f", cost {cost(best, prices):,.2f}" if prices else "")


def reasons(found: Iterable[Point]) -> list[str]:
    """Why some have no plan."""
    return [
        f"{p.topology}, batch {p.batch_size:,}, micro-batch {p.microbatch:,}, fsdp {p.fsdp}: "
        f"{p.reason}"
        for p in found
        if p.plan is None
    ]


def lines(found: Sequence[Point], prices: Mapping[str, float]) -> str:
    """The table and the cheapest, as text."""
    table = text_report.columns(rows(found, prices))
    return "\n".join([*table, "", *reasons(found), sentence(found, prices)]) + "\n"


def page(found: Sequence[Point], prices: Mapping[str, float], name: str, command: str) -> str:
    """The table and the picture, as a page."""
    head, *body = rows(found, prices)
    fitting, best = [p for p in found if p.fits], cheapest(found, prices)
    content = note(sentence(found, prices))
    if fitting:
        shown = [
            (p.topology, p.plan.totals.seconds / 3600, cost(p, prices), p is best)
            for p in fitting
            if p.plan is not None
        ]
        picture = figures.scatter(shown, "cost" if prices else "chip-hours")
        caption = "Every point is a plan that fits; both scales are logarithmic. Step times are "
        caption += "modelled: each plan's own page says from what."
        content += figure(picture, "Cost against time", caption)
    top = header(f"Sweep: {name}", [command])
    content += table(head, body, kind="plain tight") + "".join(map(note, reasons(found)))
    return document(f"Sweep: {name}", top + section("Compared", content))
