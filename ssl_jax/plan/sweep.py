"""Compares plans of one training on several topologies and sizes, and finds the cheapest."""

import itertools
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from ml_collections import ConfigDict

from ssl_jax import config as configuration
from ssl_jax.errors import BAD_CONFIG, Fault
from ssl_jax.jobs import files
from ssl_jax.plan import figures, formatting
from ssl_jax.plan.html_report import table
from ssl_jax.plan.result import Plan, verdict
from ssl_jax.plan.text_report import align
from ssl_jax.plan.topologies import Topology
from ssl_jax.report.html_elements import document, figure, header, note, section

Planner = Callable[[ConfigDict, Topology, pathlib.Path], Plan]


class Point(NamedTuple):
    """Training on one topology with given sizes; the field names are the keys of sweep.json.

    Attributes:
      topology: name of the topology.
      batch_size, microbatch, fsdp: fields of the config.
      plan: the plan; None if it failed.
      reason: why the plan failed, else "".
    """

    topology: str
    batch_size: int
    microbatch: int
    fsdp: int
    plan: Plan | None
    reason: str

    @property
    def fits(self) -> bool:
        """True if the verdict of the plan is good."""
        return self.plan is not None and verdict(self.plan.program).code == 0

    @property
    def chip(self) -> str:
        """Name of the chip, as in --price."""
        return self.topology.split(":")[0]


def run_sweep(
    config: ConfigDict,
    topologies: Iterable[Topology],
    *,
    batches: Sequence[int],
    microbatches: Sequence[int],
    fsdp: Sequence[int],
    planner: Planner,
    folder: pathlib.Path,
) -> list[Point]:
    """Plans every combination, each in its own subfolder.

    Args:
      batches, microbatches, fsdp: values to try; if empty, the config's value.
      planner: compiles and plans one combination; raises Fault if this is not possible.
    """
    combinations = itertools.product(
        topologies,
        batches or [config.train.batch_size],
        microbatches or [config.train.microbatch],
        fsdp or [config.parallel.fsdp],
    )
    points = []
    for topology, batch, microbatch, shards in combinations:
        changed = config.copy_and_resolve_references()
        changed.train.update(batch_size=batch, microbatch=microbatch)
        changed.parallel.fsdp = shards
        name = f"{topology.name}-b{batch}-m{microbatch}-f{shards}".replace(":", "-")
        plan, reason = _try_plan(planner, changed, topology, files.inside(folder, name))
        print(f"{name}: {verdict(plan.program).sentence if plan else reason}", flush=True)
        points.append(Point(topology.name, batch, microbatch, shards, plan, reason))
    return points


def _try_plan(
    planner: Planner, config: ConfigDict, topology: Topology, folder: pathlib.Path
) -> tuple[Plan | None, str]:
    """Returns a plan, or None with the reason: one failing point does not end the sweep."""
    try:
        if problems := configuration.problems(config):
            raise Fault(problems[0], BAD_CONFIG)
        folder.mkdir(parents=True, exist_ok=True)
        return planner(config, topology, folder), ""
    except Fault as fault:
        return None, " ".join(str(fault).split())


def cost(point: Point, prices: Mapping[str, float]) -> float:
    """Returns the chip-hours, or their cost if prices are known."""
    assert point.plan is not None
    hours = point.plan.totals.chip_hours
    return hours * prices[point.chip] if prices else hours


def cheapest(points: Iterable[Point], prices: Mapping[str, float]) -> Point | None:
    """Returns the point of lowest cost among those that fit; None if nothing fits."""
    return min((p for p in points if p.fits), key=lambda p: cost(p, prices), default=None)


def table_rows(points: Sequence[Point], prices: Mapping[str, float]) -> list[tuple[str, ...]]:
    """Returns a heading row, then the points that fit, cheapest first, then the others."""
    head = ("topology", "chips", "batch", "micro-batch", "fsdp", "memory", "step", "limited by",
            "images/s", "time", "chip-hours", *(["cost"] if prices else []), "")  # fmt: skip
    fitting = sorted((p for p in points if p.fits), key=lambda p: cost(p, prices))
    others = (p for p in points if not p.fits)
    best = fitting[0] if fitting else None
    return [head, *(_row(p, prices, best) for p in [*fitting, *others])]


def _row(point: Point, prices: Mapping[str, float], best: Point | None) -> tuple[str, ...]:
    config = (f"{point.batch_size:,}", f"{point.microbatch:,}" if point.microbatch else "–",
              str(point.fsdp))  # fmt: skip
    if point.plan is None:
        blank = ("",) * (7 if prices else 6)
        return (point.topology, "", *config, *blank, "no plan")
    plan = point.plan
    memory, totals = plan.program.memory, plan.totals
    judgement = verdict(plan.program)
    problem = judgement.sentence.split(":")[0].lower() if judgement.code else ""
    times = (
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
        *(("",) * len(times) if plan.program.out_of_memory else times),
        "cheapest" if point is best else problem,
    )


def cheapest_sentence(points: Sequence[Point], prices: Mapping[str, float]) -> str:
    """Returns a sentence that names the cheapest point that fits."""
    best = cheapest(points, prices)
    if best is None:
        return "Nothing fits."
    sentence = f"Cheapest that fits: {best.topology}, batch {best.batch_size:,}"
    sentence += f", micro-batch {best.microbatch:,}" if best.microbatch else ""
    sentence += f", fsdp {best.fsdp}" if best.fsdp > 1 else ""
    assert best.plan is not None
    totals = best.plan.totals
    hours, time = formatting.hours(totals.chip_hours), formatting.duration(totals.seconds)
    sentence += f": {hours} chip-hours in {time}"
    return sentence + (f", cost {cost(best, prices):,.2f}" if prices else "")


def failure_reasons(points: Iterable[Point]) -> list[str]:
    """Returns a line for every point without a plan."""
    return [
        f"{p.topology}, batch {p.batch_size:,}, micro-batch {p.microbatch:,}, fsdp {p.fsdp}: "
        f"{p.reason}"
        for p in points
        if p.plan is None
    ]


def format_sweep(points: Sequence[Point], prices: Mapping[str, float]) -> str:
    """Returns the table, the failures and the cheapest point as text."""
    lines = align(table_rows(points, prices))
    sentence = cheapest_sentence(points, prices)
    return "\n".join([*lines, "", *failure_reasons(points), sentence]) + "\n"


def sweep_page(
    points: Sequence[Point], prices: Mapping[str, float], name: str, command: str
) -> str:
    """Returns the table and a chart of cost against time as an HTML page."""
    head, *body = table_rows(points, prices)
    fitting, best = [p for p in points if p.fits], cheapest(points, prices)
    content = note(cheapest_sentence(points, prices))
    if fitting:
        shown = [
            (p.topology, p.plan.totals.seconds / 3600, cost(p, prices), p is best)
            for p in fitting
            if p.plan is not None
        ]
        picture = figures.cost_scatter(shown, "cost" if prices else "chip-hours")
        caption = "Every point is a plan that fits; both scales are logarithmic. Step times are "
        caption += "modelled; the page of each plan says how."
        content += figure(picture, "Cost against time", caption)
    top = header(f"Sweep: {name}", [command])
    content += table(head, body, kind="plain tight")
    content += "".join(map(note, failure_reasons(points)))
    return document(f"Sweep: {name}", top + section("Compared", content))
