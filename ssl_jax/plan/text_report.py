"""A plan as lines of text."""

from collections.abc import Iterable, Sequence

from ssl_jax.plan import formatting
from ssl_jax.plan.result import Plan, described, verdict
from ssl_jax.plan.roofline import Forecast, Timed

Rows = list[tuple[str, ...]]
LONGEST = 60  # characters of an operation's name
SMALL = 2**18  # bytes; below, hops take longer than what is carried
ROWS = 8  # collectives that are listed; plan.json has all


def text(plan: Plan) -> str:
    """The whole plan; each part says whether it is compiled or modelled."""
    parts = [
        [f"{plan.name} on {where(plan)}", verdict(plan.program).sentence],
        ["Memory of a device (compiled)", *columns(memory(plan))],
        *([] if plan.program.out_of_memory else _times(plan)),
        ["Sizes", *columns(sizes(plan))],
        ["What is compiled, what is modelled", *(f"  {line}" for line in origin(plan))],
    ]
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _times(plan: Plan) -> list[list[str]]:
    """What there is only of a step that the compiler did not refuse."""
    return [
        ["Work of a device in one step (compiled)", *columns(work(plan))],
        ["Time of a step (modelled)", *columns(times(plan.forecast))],
        *([["Predicted and measured", *columns(comparison(plan))]] if plan.checked else []),
        ["Collectives of a step (compiled; times modelled)", *columns(collectives(plan.forecast))],
        ["The run (modelled)", *columns(run(plan))],
        ["Input (measured on this machine)", *columns(inputs(plan))],
    ]


def where(plan: Plan) -> str:
    """ "v5e:16x16: 256 chips, 64 hosts"."""
    topology, chips = plan.program.topology, plan.program.topology.chips
    found = f"{topology.name}: {chips:,} chips"
    if topology.devices != chips:
        found += f" ({topology.devices:,} devices)"
    found += f", {topology.hosts} hosts" if topology.hosts > 1 else ", 1 host"
    return found + (f", {topology.slices} slices" if topology.slices > 1 else "")


def memory(plan: Plan) -> Rows:
    """(what, size, share of the device)."""
    memory = plan.program.memory
    parts = [(name, getattr(memory, name)) for name in memory._fields if name != "limit"]
    headroom = memory.headroom
    rows: Rows = [
        (n, formatting.size(b), formatting.percent(b / memory.limit))
        for n, b in parts
        if b or n == "total"
    ]
    if headroom < 0:
        return [*rows, ("missing", formatting.size(-headroom), "")]
    return [
        *rows,
        ("headroom", formatting.size(headroom), formatting.percent(headroom / memory.limit)),
    ]


def work(plan: Plan) -> Rows:
    """FLOPs against an even split, and bytes."""
    program = plan.program
    ratio = program.flops / program.even_flops if program.even_flops else 1.0
    each = program.bytes * program.topology.devices / program.global_batch
    rows: Rows = [
        ("FLOPs", formatting.operations(program.flops)),
        ("of an even split", f"{formatting.operations(program.even_flops)}, so {ratio:.3f} times"),
        (
            f"{plan.forecast.resources.memory} traffic",
            f"{formatting.size(program.bytes)}, {formatting.size(each)} an image",
        ),
    ]
    rows += [("repeated", described(work)) for work in program.replicated]
    return rows if program.replicated else [*rows, ("repeated", "nothing of note")]


def times(forecast: Forecast) -> Rows:
    """Parts, bounds, prediction."""
    reached, names, seconds = forecast.efficiency, forecast.resources, formatting.seconds
    rows: Rows = [
        (names.compute, seconds(forecast.compute), f"at {formatting.percent(reached.compute)} of the "
         f"peak; {seconds(forecast.compute_bound)} at all of it"),
        (names.memory, seconds(forecast.hbm), f"at {formatting.percent(reached.hbm)} of the bandwidth; "
         f"{seconds(forecast.hbm_bound)} at all of it"),
        (names.inside, seconds(forecast.inside), "not hidden behind the above"),
    ]  # fmt: skip
    if forecast.between:
        rows.append((names.between, seconds(forecast.between), "not hidden behind the above"))
    return [
        *rows,
        ("step", seconds(forecast.step), f"{forecast.binds} binds; between "
         f"{seconds(forecast.fastest)} (full rates, all overlaps) and "
         f"{seconds(forecast.slowest)} (nothing overlaps)"),
        ("images/s", formatting.count(forecast.images_per_second),
         f"{forecast.images_per_chip:,.0f} a chip"),
        ("MFU", formatting.percent(forecast.mfu),
         f"of the peak; {formatting.percent(forecast.hbm_share)} of the {names.memory} bandwidth"),
    ]  # fmt: skip


def comparison(plan: Plan) -> Rows:
    """The prediction beside what the step took here."""
    measured, forecast, memory = plan.checked, plan.forecast, plan.program.memory
    assert measured is not None
    return [
        ("", "predicted", "measured", "measured / predicted"),
        ("step", formatting.seconds(forecast.step), formatting.seconds(measured.step),
         f"{measured.step / forecast.step:.2f}; measured {formatting.seconds(measured.fastest)} to "
         f"{formatting.seconds(measured.slowest)} in {measured.steps} steps, bounds "
         f"{formatting.seconds(forecast.fastest)} and {formatting.seconds(forecast.slowest)}"),
        ("memory of a device", formatting.size(memory.total), formatting.size(measured.memory),
         f"{measured.memory / memory.total:.2f}"),
    ]  # fmt: skip


def collectives(forecast: Forecast) -> Rows:
    """One row for each kind, group and source, the longest first."""
    if not forecast.collectives:
        return [("none",)]
    rows: Rows = [
        ("kind", "times", "bytes each", "devices", "axis", "over", "time", "largest from")
    ]
    for several in groups(forecast.collectives)[:ROWS]:
        rows.append(row(several))
    return rows


def groups(collectives: Iterable[Timed]) -> list[list[Timed]]:
    """Collectives of one kind, group and network together, small ones apart; the longest first."""
    found: dict[tuple, list[Timed]] = {}
    for timed in collectives:
        c = timed.collective
        found.setdefault((c.kind, c.axis, c.group, c.network, c.bytes < SMALL), []).append(timed)
    return sorted(found.values(), key=lambda several: -sum(t.seconds for t in several))


def row(several: Sequence[Timed]) -> tuple[str, ...]:
    """A row of the table of collectives."""
    largest = max((t.collective for t in several), key=lambda c: c.bytes)
    sizes = sorted({t.collective.bytes for t in several})
    size = formatting.size(sizes[0])
    return (
        largest.kind,
        formatting.count(sum(t.collective.count for t in several)),
        size if len(sizes) == 1 else f"{size} to {formatting.size(sizes[-1])}",
        formatting.count(largest.group),
        largest.axis,
        largest.network,
        formatting.seconds(sum(t.seconds for t in several)),
        origin_of(largest.source),
    )


def origin_of(source: str) -> str:
    """The operation a collective comes from, short; of several that share one, the first."""
    several = source[1:-1].split(":") if source.startswith("(") and ":" in source else [source]
    first = several[0]
    first = first if len(first) <= LONGEST else f"…{first[1 - LONGEST :]}"
    return first if len(several) == 1 else f"{first} and {len(several) - 1} more"


def run(plan: Plan) -> Rows:
    """Steps, time, chip-hours, checkpoints."""
    totals = plan.totals
    return [
        ("steps", formatting.count(totals.steps),
         f"{totals.epochs:,.4g} epochs of {totals.images:,} images"),
        ("time", formatting.duration(totals.seconds), "without evaluation, compiling and interruptions"),
        ("chip-hours", formatting.hours(totals.chip_hours), ""),
        ("checkpoint", formatting.size(totals.checkpoint_bytes),
         f"{totals.saves:,} in the run, one every {formatting.duration(totals.save_every)}; "
         f"{totals.kept} stay on disk"),
    ]  # fmt: skip


def inputs(plan: Plan) -> Rows:
    """What each host must deliver, and the CPUs that it takes."""
    if plan.need is None or plan.speed is None:
        return [("not measured", "")]
    need, speed = plan.need, plan.speed
    rows: Rows = [
        ("each host", f"{need.images_per_second:,.0f} images/s"),
        ("one CPU here", f"{speed.host:,.0f} images/s with all augmentation on the host, "
         f"{speed.device:,.0f} with colours on the device ({speed.source})"),
        ("CPUs needed", f"{need.cpus:,.1f} by augment.placement={plan.placement}; "
         f"host {need.cpus_host:,.1f}, device {need.cpus_device:,.1f}"),
    ]  # fmt: skip
    if not need.available:
        return rows
    if need.cpus <= need.available:
        return [*rows, ("a host has", f"{need.available} CPUs: enough")]
    cure = "augment.placement=device, smaller prepared images, or more hosts"
    return [
        *rows,
        ("a host has", f"{need.available} CPUs: THE INPUT WILL STARVE THE CHIPS ({cure})"),
    ]


def sizes(plan: Plan) -> Rows:
    """What divides."""
    return [
        (size.field, formatting.count(size.value), size.note if size.fits else
         f"{size.note}; nearest: {', '.join(map(str, size.valid))}")
        for size in plan.sizes
    ]  # fmt: skip


def origin(plan: Plan) -> list[str]:
    """What the numbers rest on."""
    chip, forecast = plan.program.topology.chip, plan.forecast
    program, names = plan.program, forecast.resources
    rates = f"Rates of a chip: {chip.flops / 1e12:,.3g} TFLOP/s, {names.memory} "
    rates += (
        f"{chip.hbm_bandwidth / 1e9:,.4g} GB/s, {names.inside} {chip.link_bandwidth / 1e9:,.4g} "
    )
    rates += "GB/s one way" + (" a link" if chip.kind == "tpu" else "")
    if chip.kind != "cpu":
        rates += f"; {names.between} {chip.dcn_bandwidth / 1e9:,.4g} GB/s a host; all published"
    found = [program.compiled_for, f"{rates}."]
    if program.out_of_memory:
        found.insert(1, f"{program.out_of_memory}; work that devices repeat was not looked for.")
    found.append(f"Reached: {forecast.efficiency.reason}.")
    longer = f"the longer of {names.compute} and {names.memory}"
    return [*found, f"Prediction: {longer}, then all collectives, none hidden."]


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as aligned lines; the last column is ragged."""
    width = max(map(len, rows))
    full = [[*row, *[""] * (width - len(row))] for row in rows]
    widths = [max(len(row[i]) for row in full) for i in range(width)]
    return [
        "  " + "  ".join(cell.ljust(n) for cell, n in zip(row, widths, strict=True)).rstrip()
        for row in full
    ]
