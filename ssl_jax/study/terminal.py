"""Text that a study prints: its cells with their status and estimated time, and failures."""

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from ssl_jax.errors import BAD_DATA, Fault
from ssl_jax.jobs import json_files
from ssl_jax.jobs.json_files import is_number
from ssl_jax.report.formatting import duration
from ssl_jax.report.run_files import metric_series, read_run
from ssl_jax.study import learning_rates, study_folder
from ssl_jax.study.cells import Cell
from ssl_jax.study.study_folder import Study

HEAD = ("", "cell", "lr", "steps", "images", "status", "estimate")
RULE_NOTE = (
    "Each rule has a base rate such that all rules agree at the config's batch size, {batch}: "
    "there the rate is {rate:.4g}. (SimCLR's 0.3 linear and 0.075 sqrt agree at 4096.)"
)


class Pace(NamedTuple):
    """Speed of the finished cells.

    Attributes:
      images: images per second during training.
      other: seconds per cell outside the training steps.
    """

    images: float
    other: float


def data_sizes(study: Study, cells: Sequence[Cell], *, strict: bool) -> dict[str, int]:
    """Returns {split: number of training images}, without splits that are not available.

    Raises:
      Fault: only if `strict`: data are missing, or a batch is larger than the data.
    """
    from ssl_jax import components

    sizes: dict[str, int] = {}
    for cell in cells:
        data = cell.config.data
        if data.split in sizes:
            continue
        metadata = json_files.read_or_ignore(study.run_path(cell) / "metadata.json")
        images = metadata.get("train_images")
        try:
            if not is_number(images):
                images = components.open_source(cell.config, data.split).size
            sizes[data.split] = int(images)
        except Fault:
            if strict:
                raise
    problems = [
        f"{cell.name}: {sizes[split]} examples < batch {batch_size}"
        for cell in cells
        if (split := cell.config.data.split) in sizes
        and sizes[split] < (batch_size := cell.config.train.batch_size)
    ]
    if strict and problems:
        raise Fault("no cell was started:\n  " + "\n  ".join(problems), BAD_DATA)
    return sizes


def list_cells(study: Study, cells: Sequence[Cell], sizes: dict[str, int]) -> str:
    """Returns a table of the cells with rate, steps, images, status and estimated time.

    Args:
      study: study of the cells.
      cells: cells to list.
      sizes: training images by split, see `data_sizes`.
    """
    pace = measured_pace(study)
    numbers = {cell.name: i for i, cell in enumerate(study.cells)}
    rows, total_seconds = [], 0.0
    for i, cell in enumerate(study.cells):
        if cell not in cells:
            continue
        status = study_folder.status(study, cell)
        if cell.same_as:
            status = f"as {numbers[cell.same_as]}"
        size = sizes.get(cell.config.data.split)
        steps = study_folder.total_steps(cell.config, size) if size else cell.config.train.steps
        images = steps * cell.config.train.batch_size
        pending = status not in ("done", "diverged") and not cell.same_as
        seconds = images / pace.images + pace.other if pace and images and pending else 0.0
        total_seconds += seconds
        counts = [f"{steps:,}" if steps else "?", f"{images:,}" if steps else "?"]
        estimate = duration(seconds) if seconds else ""
        rows.append([str(i), cell.name, f"{cell.rate:.4g}", *counts, status, estimate])
    lines = [_align([list(HEAD), *rows])]
    if any("lr_rule" in cell.setting for cell in cells):
        lines.append(rule_note(study))
    pending_count = sum(row[5] not in ("done", "diverged") and row[5][:3] != "as " for row in rows)
    total = f", about {duration(total_seconds)} at the pace of finished cells"
    lines.append(f"{len(rows)} cells, {pending_count} to run{total if total_seconds else ''}.")
    return "\n".join(lines)


def rule_note(study: Study) -> str:
    """Explains how the base rates of several rules were made comparable."""
    batch_size = study.config.train.batch_size
    return RULE_NOTE.format(batch=batch_size, rate=learning_rates.peak_rates(study.config)[""])


def measured_pace(study: Study) -> Pace | None:
    """Returns the median pace of the finished cells; None if there are none."""
    rates, others = [], []
    for cell in study.cells:
        if cell.same_as or study_folder.status(study, cell) != "done":
            continue
        run = read_run(study.run_path(cell))
        speed = metric_series(run, "images_per_second")[1]
        seconds = study.record(cell).get("seconds")
        if len(speed) and seconds and run.metrics:
            rates.append(statistics.median(speed))
            images = run.metrics[-1]["step"] * run.batch_size
            others.append(max(seconds - images / rates[-1], 0.0))
    return Pace(statistics.median(rates), statistics.median(others)) if rates else None


def failures(study: Study, failed: Sequence[Cell]) -> str:
    """Lists the failed cells with their exit codes and the last lines of their output."""
    parts = [
        f"{len(failed)} of {len(study.cells)} cells failed; run the same command to try them again:"
    ]
    for cell in failed:
        record = study.record(cell)
        parts.append(f"{cell.name}: exit {record.get('exit')}, see {study.log_path(cell)}")
        parts += [f"    {line}" for line in record.get("lines", [])]
    return "\n".join(parts)


def _align(rows: list[list[str]]) -> str:
    """Aligns the columns of a table: cell and status to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    left = (1, 5)
    return "\n".join(
        "  ".join(
            word.ljust(width) if i in left else word.rjust(width)
            for i, (word, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
