"""What the cells of a study came to, from their files, as rows."""

import csv
import io
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from ssl_jax.report import evaluation
from ssl_jax.report.evaluation import BASELINES, Evaluation
from ssl_jax.report.files import Run, read, series
from ssl_jax.study import folder, grid
from ssl_jax.study.cells import Cell
from ssl_jax.study.folder import Study

Length = tuple[str, float]  # ("epochs", 100.0) or ("steps", 500.0)


class Row(NamedTuple):
    """A cell and what is known of it."""

    cell: Cell
    status: str  # of `folder.status`
    record: dict[str, Any]  # how its last attempt ended
    run: Run | None  # its files, once there are any

    @property
    def batch(self) -> int:
        """Images of a global batch."""
        return self.cell.config.train.batch_size

    @property
    def rule(self) -> str:
        """By which the learning rate follows the batch."""
        return self.cell.config.optim.lr_rule

    @property
    def seed(self) -> int:
        """Of the training."""
        return self.cell.config.train.seed

    @property
    def length(self) -> Length:
        """How long it trains, in the unit that the config gives."""
        train = self.cell.config.train
        return ("steps", float(train.steps)) if train.steps else ("epochs", float(train.epochs))

    @property
    def others(self) -> dict[str, Any]:
        """What else the grid varies; not the devices, which change nothing but rounding."""
        known = ("batch", "epochs", "steps", "lr_rule", "seed", grid.DEVICES)
        return {k: v for k, v in self.cell.setting.items() if k not in known}

    @property
    def devices(self) -> int | None:
        """On how many it ran; None before it did."""
        return self.run.metadata.get("devices") if self.run else None

    @property
    def evaluations(self) -> dict[str, Evaluation]:
        """Those that give one accuracy, {} until all of them are made."""
        return evaluation.scores(self.run.evals) if self.run and self.status == "done" else {}

    def accuracy(self, name: str, features: str = "") -> float | None:
        """In per cent, of the method's own features or of a baseline's."""
        if self.run is None or name not in self.evaluations:
            return None
        found = self.evaluations[name]
        features = features or evaluation.own(self.run, found)
        numbers = evaluation.numbers(evaluation.result(found, features))
        return numbers.percent if numbers else None

    def last(self, key: str) -> float | None:
        """The last value of a metric that is finite; None if it was never logged."""
        values = series(self.run, key)[1].tolist() if self.run else []
        return values[-1] if values else None

    @property
    def images_per_second(self) -> float | None:
        """Median over the training, of whatever else the machine did meanwhile."""
        values = series(self.run, "images_per_second")[1].tolist() if self.run else []
        return statistics.median(values) if values else None


def rows(study: Study) -> list[Row]:
    """All cells, in their order."""
    found = []
    for cell in study.cells:
        path = study.run(cell)
        there = (path / "config.json").exists()
        run = read(path) if there else None
        status = folder.status(study, _trained(study, cell))
        found.append(Row(cell, status, study.record(cell), run))
    return found


def _trained(study: Study, cell: Cell) -> Cell:
    """The cell whose training it shares: rates that are the same differ in how they are spelled."""
    return next((c for c in study.cells if c.name == cell.same_as), cell)


def evaluations(found: Sequence[Row]) -> dict[str, str]:
    """{name: heading} of all evaluations that any cell has: linear with most labels first."""
    known = {name: e for row in found for name, e in row.evaluations.items()}

    def order(name: str) -> tuple[bool, float]:
        not_linear, labels = evaluation.order(name)
        return not_linear, -labels if not not_linear else 0.0

    return {name: evaluation.heading(known[name]) for name in sorted(known, key=order)}


def baselines(found: Sequence[Row], name: str) -> dict[str, float]:
    """{baseline: accuracy} of an evaluation, means over the cells that have them."""
    values = {
        b: [v for row in found if (v := row.accuracy(name, b)) is not None] for b in BASELINES
    }
    return {b: statistics.mean(of) for b, of in values.items() if of}


def table(found: Sequence[Row]) -> str:
    """study.csv: a row for every cell."""
    names = evaluations(found)
    keys = list(dict.fromkeys(key for row in found for key in row.others))
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    fixed = ["cell", "status", "batch", "length", "unit", "lr_rule", "base_lr", "lr", "seed"]
    measured = ["devices", "steps", "images", "final_loss", "noise_scale_images"]
    measured += ["images_per_second", "seconds", "exit", "same_as"]
    scored = [column for name in names for column in (f"{name}_percent", f"{name}_protocol")]
    writer.writerow([*fixed, *keys, *scored, *measured])
    for row in found:
        writer.writerow(
            _fixed(row) + [_text(row.others.get(k)) for k in keys] + _measured(row, names)
        )
    return file.getvalue()


def _fixed(row: Row) -> list[str]:
    unit, length = row.length
    base = row.cell.config.optim.lr
    values = [row.cell.name, row.status, row.batch, length, unit]
    return [_text(v) for v in [*values, row.rule, base, row.cell.rate, row.seed]]


def _measured(row: Row, names: dict[str, str]) -> list[str]:
    step = int(row.run.metrics[-1]["step"]) if row.run and row.run.metrics else None
    scored: list[Any] = []
    for name in names:
        found = row.evaluations.get(name)
        scored += [row.accuracy(name), protocol(found) if found else None]
    values = [*scored, row.devices, step, step and step * row.batch, row.last("loss")]
    values += [row.last("noise_scale"), row.images_per_second, row.record.get("seconds")]
    return [_text(v) for v in [*values, row.record.get("exit"), row.cell.same_as]]


def protocol(found: Evaluation) -> str:
    """An evaluation's protocol, in a line."""
    by = found.get("protocol", {})
    facts = [evaluation.heading(found)]
    if by.get("draws", 1) > 1:
        facts.append(f"mean of {by['draws']} draws")
    facts += [f"{key}: {by[key]}" for key in ("train images", "test images") if key in by]
    return "; ".join(facts)


def _text(value: Any) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
