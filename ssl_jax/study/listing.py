"""What a study says in the terminal: its cells, how long they take, and which failed."""

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from ssl_jax.errors import BAD_DATA, Fault
from ssl_jax.report.files import read, series
from ssl_jax.rundir import workdir
from ssl_jax.study import folder
from ssl_jax.study.cells import Cell
from ssl_jax.study.folder import Study
from ssl_jax.study.grid import spelled

HEAD = ("", "cell", "lr", "steps", "images", "status", "estimate")
RULE_NOTE = (
    "The base rate of each rule is such that all rules agree at the config's own batch size, "
    "{batch}: there the rate is {rate:.4g}. (SimCLR's 0.3 linear and 0.075 sqrt agree at 4096.)"
)


class Pace(NamedTuple):
    """How fast cells that are done were."""

    images: float  # a second, in training
    other: float  # seconds of a cell for all but its steps


def sizes(study: Study, cells: Sequence[Cell], *, strict: bool) -> dict[str, int]:
    """{split: train images} as far as known.

    Raises:
      Fault: where `strict`, data that are missing, and cells with more images a batch than that.
    """
    from ssl_jax import components

    found: dict[str, int] = {}
    for cell in cells:
        data = cell.config.data
        if data.split in found:
            continue
        known = workdir.Workdir(study.run(cell)).read_json("metadata.json") or {}
        try:
            found[data.split] = known.get("train_images") or (
                components.open_source(cell.config, data.split).size
            )
        except Fault:
            if strict:
                raise
    wrong = [
        f"{cell.name}: {found[split]} images < batch {batch_size}"
        for cell in cells
        if (split := cell.config.data.split) in found
        and found[split] < (batch_size := cell.config.train.batch_size)
    ]
    if strict and wrong:
        raise Fault("no cell was started:\n  " + "\n  ".join(wrong), BAD_DATA)
    return found


def text(study: Study, cells: Sequence[Cell], images: dict[str, int]) -> str:
    """A line for every cell: rate, steps, images, how far, how long; then the sum."""
    from ssl_jax.report.page import duration  # and matplotlib, which a mistake need not wait for

    speed = pace(study)
    places = {cell.name: i for i, cell in enumerate(study.cells)}
    rows, seconds = [], 0.0
    for i, cell in enumerate(study.cells):
        if cell not in cells:
            continue
        state = f"as {places[cell.same_as]}" if cell.same_as else folder.status(study, cell)
        size = images.get(cell.config.data.split)
        steps = folder.total_steps(cell.config, size) if size else cell.config.train.steps
        shown = steps * cell.config.train.batch_size
        waits = state not in ("done", "diverged") and not cell.same_as
        took = shown / speed.images + speed.other if speed and shown and waits else 0.0
        seconds += took
        numbers = [f"{steps:,}" if steps else "?", f"{shown:,}" if steps else "?"]
        estimate = duration(took) if took else ""
        rows.append([str(i), cell.name, f"{cell.rate:.4g}", *numbers, state, estimate])
    lines = [_table([list(HEAD), *rows])]
    if any("lr_rule" in cell.setting for cell in cells):
        lines.append(rule_note(study))
    waiting = sum(row[5] not in ("done", "diverged") and row[5][:3] != "as " for row in rows)
    total = f", about {duration(seconds)} at the pace of those that are done" if seconds else ""
    lines.append(f"{len(rows)} cells, {waiting} to run{total}.")
    return "\n".join(lines)


def rule_note(study: Study) -> str:
    """How the base rates of several rules were made comparable."""
    from ssl_jax.study import rates

    batch_size = study.config.train.batch_size
    return RULE_NOTE.format(batch=batch_size, rate=rates.peaks(study.config)[""])


def pace(study: Study) -> Pace | None:
    """Medians over the cells that are done; None when there are none."""
    rates, others = [], []
    for cell in study.cells:
        if cell.same_as or folder.status(study, cell) != "done":
            continue
        run = read(study.run(cell))
        speed = series(run, "images_per_second")[1]
        seconds = study.record(cell).get("seconds")
        if len(speed) and seconds:
            rates.append(statistics.median(speed))
            shown = run.metrics[-1]["step"] * run.batch_size
            others.append(max(seconds - shown / rates[-1], 0.0))
    return Pace(statistics.median(rates), statistics.median(others)) if rates else None


def failures(study: Study, failed: Sequence[Cell]) -> str:
    """Which cells failed, by which code, with the last lines that each printed."""
    parts = [f"{len(failed)} of {len(study.cells)} cells failed; the same command tries them anew:"]
    for cell in failed:
        record = study.record(cell)
        parts.append(f"{cell.name}: exit {record['exit']}, see {study.log(cell)}")
        parts += [f"    {line}" for line in record["lines"]]
    return "\n".join(parts)


def setting(cell: Cell) -> str:
    """ "batch 64, epochs 4, lr_rule linear": a cell, for people."""
    return ", ".join(f"{key} {spelled(value)}" for key, value in cell.setting.items())


def _table(rows: list[list[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    left = (1, 5)
    return "\n".join(
        "  ".join(
            word.ljust(width) if i in left else word.rjust(width)
            for i, (word, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
