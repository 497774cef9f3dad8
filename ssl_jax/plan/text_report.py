"""A plan as text, and the table rows that the HTML page shows as well."""

from collections.abc import Iterable, Sequence

from ssl_jax.plan.formatting import count, duration, flops, hours, percent, seconds, size
from ssl_jax.plan.result import Plan, describe_replicated, verdict
from ssl_jax.plan.roofline import Forecast, TimedCollective

Rows = list[tuple[str, ...]]
LONGEST_NAME = 60  # characters of an operation's name
SMALL = 2**18  # bytes below which the latency of hops exceeds the time of the transfer
MAX_COLLECTIVES = 8  # listed rows; plan.json has all collectives


def format_plan(plan: Plan) -> str:
    """Returns the whole plan; each heading says if its numbers are compiled or modelled."""
    parts = [
        [f"{plan.name} on {describe_topology(plan)}", verdict(plan.program).sentence],
        ["Memory of a device (compiled)", *align(memory_rows(plan))],
        *([] if plan.program.out_of_memory else _time_parts(plan)),
        ["Sizes", *align(size_rows(plan))],
        ["What is compiled, what is modelled", *(f"  {line}" for line in basis(plan))],
    ]
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _time_parts(plan: Plan) -> list[list[str]]:
    """Returns the parts that need a compiled program; a step out of memory has none."""
    collectives = align(collective_rows(plan.forecast))
    return [
        ["Work of a device in one step (compiled)", *align(work_rows(plan))],
        ["Time of a step (modelled)", *align(time_rows(plan.forecast))],
        *([["Predicted and measured", *align(comparison_rows(plan))]] if plan.checked else []),
        ["Collectives of a step (compiled; times modelled)", *collectives],
        ["The run (modelled)", *align(run_rows(plan))],
        ["Input (measured on this machine)", *align(input_rows(plan))],
    ]


def describe_topology(plan: Plan) -> str:
    """Returns a line such as "v5e:16x16: 256 chips, 64 hosts"."""
    topology, chips = plan.program.topology, plan.program.topology.chips
    line = f"{topology.name}: {chips:,} chips"
    if topology.devices != chips:
        line += f" ({topology.devices:,} devices)"
    line += f", {topology.hosts} hosts" if topology.hosts > 1 else ", 1 host"
    return line + (f", {topology.slices} slices" if topology.slices > 1 else "")


def memory_rows(plan: Plan) -> Rows:
    """Returns (part, size, share of the device)."""
    memory = plan.program.memory
    parts = [(name, getattr(memory, name)) for name in memory._fields if name != "limit"]
    rows: Rows = [
        (name, size(bytes_), percent(bytes_ / memory.limit))
        for name, bytes_ in parts
        if bytes_ or name == "total"
    ]
    headroom = memory.headroom
    if headroom < 0:
        return [*rows, ("missing", size(-headroom), "")]
    return [*rows, ("headroom", size(headroom), percent(headroom / memory.limit))]


def work_rows(plan: Plan) -> Rows:
    """Returns FLOPs against an even share, memory traffic, and repeated work."""
    program = plan.program
    ratio = program.flops / program.even_flops if program.even_flops else 1.0
    per_image = program.bytes * program.topology.devices / program.global_batch
    rows: Rows = [
        ("FLOPs", flops(program.flops)),
        ("even share", f"{flops(program.even_flops)}; the device does {ratio:.3f} times this"),
        (
            f"{plan.forecast.resources.memory} traffic",
            f"{size(program.bytes)}, {size(per_image)} per {plan.noun}",
        ),
    ]
    rows += [("repeated", describe_replicated(work)) for work in program.replicated]
    return rows if program.replicated else [*rows, ("repeated", "none")]


def time_rows(forecast: Forecast) -> Rows:
    """Returns the parts of a step's time, the prediction with its bounds, and rates."""
    reached, names = forecast.efficiency, forecast.resources
    rows: Rows = [
        (names.compute, seconds(forecast.compute),
         f"at {percent(reached.compute)} of the peak; {seconds(forecast.compute_bound)} at peak"),
        (names.memory, seconds(forecast.hbm),
         f"at {percent(reached.hbm)} of the bandwidth; {seconds(forecast.hbm_bound)} at full "
         "bandwidth"),
        (names.inside, seconds(forecast.inside), "does not overlap with the above"),
    ]  # fmt: skip
    if forecast.between:
        rows.append((names.between, seconds(forecast.between), "does not overlap with the above"))
    return [
        *rows,
        ("step", seconds(forecast.step),
         f"limited by {forecast.binds}; between {seconds(forecast.fastest)} (full rates, full "
         f"overlap) and {seconds(forecast.slowest)} (no overlap)"),
        ("images/s", count(forecast.images_per_second),
         f"{forecast.images_per_chip:,.0f} per chip"),
        ("MFU", percent(forecast.mfu),
         f"of the peak; {percent(forecast.hbm_share)} of the {names.memory} bandwidth"),
    ]  # fmt: skip


def comparison_rows(plan: Plan) -> Rows:
    """Returns predictions beside measurements on this machine, with a heading row."""
    measured, forecast, memory = plan.checked, plan.forecast, plan.program.memory
    assert measured is not None
    return [
        ("", "predicted", "measured", "measured / predicted"),
        ("step", seconds(forecast.step), seconds(measured.step),
         f"{measured.step / forecast.step:.2f}; measured {seconds(measured.fastest)} to "
         f"{seconds(measured.slowest)} in {measured.steps} steps, bounds "
         f"{seconds(forecast.fastest)} and {seconds(forecast.slowest)}"),
        ("memory of a device", size(memory.total), size(measured.memory),
         f"{measured.memory / memory.total:.2f}"),
    ]  # fmt: skip


def collective_rows(forecast: Forecast) -> Rows:
    """Returns a heading row and one row for each kind, group and network, longest first."""
    if not forecast.collectives:
        return [("none",)]
    rows: Rows = [
        ("kind", "count", "bytes each", "devices", "axis", "network", "time", "largest from")
    ]
    for group in group_collectives(forecast.collectives)[:MAX_COLLECTIVES]:
        rows.append(collective_row(group))
    return rows


def group_collectives(collectives: Iterable[TimedCollective]) -> list[list[TimedCollective]]:
    """Groups collectives by kind, axis, devices, network and small or large; longest first."""
    groups: dict[tuple, list[TimedCollective]] = {}
    for timed in collectives:
        c = timed.collective
        groups.setdefault((c.kind, c.axis, c.group, c.network, c.bytes < SMALL), []).append(timed)
    return sorted(groups.values(), key=lambda group: -sum(t.seconds for t in group))


def collective_row(group: Sequence[TimedCollective]) -> tuple[str, ...]:
    """Returns the table row of one group of collectives."""
    largest = max((t.collective for t in group), key=lambda c: c.bytes)
    sizes = sorted({t.collective.bytes for t in group})
    smallest = size(sizes[0])
    return (
        largest.kind,
        count(sum(t.collective.count for t in group)),
        smallest if len(sizes) == 1 else f"{smallest} to {size(sizes[-1])}",
        count(largest.group),
        largest.axis,
        largest.network,
        seconds(sum(t.seconds for t in group)),
        short_source(largest.source),
    )


def short_source(source: str) -> str:
    """Shortens the name of a collective's operation; of several names, keeps the first."""
    names = source[1:-1].split(":") if source.startswith("(") and ":" in source else [source]
    first = names[0]
    first = first if len(first) <= LONGEST_NAME else f"…{first[1 - LONGEST_NAME :]}"
    return first if len(names) == 1 else f"{first} and {len(names) - 1} more"


def run_rows(plan: Plan) -> Rows:
    """Returns steps, time, chip-hours and checkpoints of the run."""
    totals = plan.totals
    early = "; the run may stop earlier (train.stop_on)" if totals.may_stop_early else ""
    return [
        ("steps", count(totals.steps),
         f"{totals.epochs:,.4g} epochs of {totals.images:,} {plan.noun}s{early}"),
        ("time", duration(totals.seconds), "without evaluation, compilation and interruptions"),
        ("chip-hours", hours(totals.chip_hours), ""),
        ("checkpoint", size(totals.checkpoint_bytes),
         f"{totals.saves:,} in the run, one every {duration(totals.save_every)}; "
         f"{totals.kept} stay on disk"),
    ]  # fmt: skip


def input_rows(plan: Plan) -> Rows:
    """Returns the examples that each host must deliver and the CPUs that this takes."""
    if plan.need is None or plan.speed is None:
        return [("not measured", "")]
    need, speed = plan.need, plan.speed
    if plan.placement:
        rate = f" with all augmentation on the host, {speed.device:,.0f} with colours on the device"
        cpus = f" with augment.placement={plan.placement} (host: {need.cpus_host:,.1f}, device: "
        cpus += f"{need.cpus_device:,.1f})"
        remedy = "use augment.placement=device, smaller prepared images, or more hosts"
    else:
        rate = cpus = ""
        remedy = "use fewer random changes of config.augment, or more hosts"
    rows: Rows = [
        ("each host", f"{need.images_per_second:,.0f} {plan.noun}s/s"),
        ("one CPU here", f"{speed.host:,.0f} {plan.noun}s/s{rate} ({speed.source})"),
        ("CPUs needed", f"{need.cpus:,.1f}{cpus}"),
    ]
    if not need.available:
        return rows
    if need.cpus <= need.available:
        return [*rows, ("a host has", f"{need.available} CPUs: enough")]
    return [
        *rows,
        ("a host has", f"{need.available} CPUs: THE INPUT WILL STARVE THE CHIPS ({remedy})"),
    ]


def size_rows(plan: Plan) -> Rows:
    """Returns the sizes of the config that must divide."""
    return [
        (item.field, count(item.value), item.note if item.fits else
         f"{item.note}; nearest: {', '.join(map(str, item.valid))}")
        for item in plan.sizes
    ]  # fmt: skip


def basis(plan: Plan) -> list[str]:
    """Returns sentences on where the numbers come from."""
    chip, forecast = plan.program.topology.chip, plan.forecast
    program, names = plan.program, forecast.resources
    rates = f"Rates of a chip: {chip.flops / 1e12:,.3g} TFLOP/s, {names.memory} "
    rates += (
        f"{chip.hbm_bandwidth / 1e9:,.4g} GB/s, {names.inside} {chip.link_bandwidth / 1e9:,.4g} "
    )
    rates += "GB/s one way" + (" per link" if chip.kind == "tpu" else "")
    if chip.kind != "cpu":
        rates += f"; {names.between} {chip.dcn_bandwidth / 1e9:,.4g} GB/s per host; all published"
    sentences = [program.compiled_for, f"{rates}."]
    if program.out_of_memory:
        sentences.insert(1, f"{program.out_of_memory}; the plan did not look for repeated work.")
    sentences.append(f"Assumed efficiency: {forecast.efficiency.reason}.")
    longer = f"the longer of {names.compute} and {names.memory}"
    return [*sentences, f"Prediction: {longer}, plus all collectives, without overlap."]


def align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns rows as lines with aligned columns; the last column is not padded."""
    width = max(map(len, rows))
    full = [[*row, *[""] * (width - len(row))] for row in rows]
    widths = [max(len(row[i]) for row in full) for i in range(width)]
    return [
        "  " + "  ".join(cell.ljust(n) for cell, n in zip(row, widths, strict=True)).rstrip()
        for row in full
    ]
