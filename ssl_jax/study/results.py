"""Results of a study's cells, read from their files, and study.csv."""

import csv
import io
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from ssl_jax.jobs.json_files import is_number
from ssl_jax.report import display_names, evaluations
from ssl_jax.report.accuracies import accuracy_of
from ssl_jax.report.evaluations import Evaluation
from ssl_jax.report.run_files import Run, metric_series, protocol_of, read_run
from ssl_jax.study import grid, study_folder
from ssl_jax.study.cells import Cell
from ssl_jax.study.study_folder import Study

Length = tuple[str, float]  # ("epochs", 100.0) or ("steps", 500.0)


class Result(NamedTuple):
    """Cell with its results.

    Attributes:
      cell: the cell.
      status: see `study_folder.status`.
      record: how the last attempt ended, see `Study.record`.
      run: files of the run; None if the run has no files yet.
    """

    cell: Cell
    status: str
    record: dict[str, Any]
    run: Run | None

    @property
    def batch(self) -> int:
        """Images per global batch."""
        return self.cell.config.train.batch_size

    @property
    def rule(self) -> str:
        """Rule by which the learning rate follows the batch size."""
        return self.cell.config.optim.lr_rule

    @property
    def seed(self) -> int:
        """Seed of the training."""
        return self.cell.config.train.seed

    @property
    def length(self) -> Length:
        """Length of the training, in the unit that the config uses."""
        train = self.cell.config.train
        return ("steps", float(train.steps)) if train.steps else ("epochs", float(train.epochs))

    @property
    def others(self) -> dict[str, Any]:
        """Values of the other keys of the grid.

        Leaves out the devices, which change nothing but rounding.
        """
        known = ("batch", "epochs", "steps", "lr_rule", "seed", grid.DEVICES)
        return {k: v for k, v in self.cell.setting.items() if k not in known}

    @property
    def devices(self) -> int | None:
        """Number of devices that the run used; None before the run."""
        devices = self.run.metadata.get("devices") if self.run else None
        return int(devices) if is_number(devices) else None

    @property
    def evaluations(self) -> dict[str, Evaluation]:
        """Evaluations that give one accuracy; {} until the cell is done."""
        if not self.run or self.status != "done":
            return {}
        return evaluations.with_one_accuracy(self.run.evals)

    def accuracy(self, name: str, features: str = "") -> float | None:
        """Returns an accuracy in per cent; None if it is unknown.

        Args:
          name: file name of the evaluation without ".json".
          features: feature set, by default the method's own.
        """
        if self.run is None or name not in self.evaluations:
            return None
        evaluation = self.evaluations[name]
        features = features or evaluations.own_features(self.run, evaluation)
        accuracy = accuracy_of(evaluations.result_of(evaluation, features))
        return accuracy.percent if accuracy else None

    def last_value(self, key: str) -> float | None:
        """Returns the last finite value of a metric; None if there is none."""
        values = metric_series(self.run, key)[1].tolist() if self.run else []
        return values[-1] if values else None

    @property
    def images_per_second(self) -> float | None:
        """Median over the training; other load on the machine lowers it."""
        values = metric_series(self.run, "images_per_second")[1].tolist() if self.run else []
        return statistics.median(values) if values else None


def read_results(study: Study) -> list[Result]:
    """Returns the results of all cells, in the order of the cells."""
    results = []
    for cell in study.cells:
        path = study.run_path(cell)
        run = read_run(path) if (path / "config.json").exists() else None
        status = study_folder.status(study, _trained_cell(study, cell))
        results.append(Result(cell, status, study.record(cell), run))
    return results


def _trained_cell(study: Study, cell: Cell) -> Cell:
    """Returns the cell that runs the training of `cell`.

    Their configs differ in how they spell the same rate, so the status depends on this one's.
    """
    return next((c for c in study.cells if c.name == cell.same_as), cell)


def evaluation_names(results: Sequence[Result]) -> dict[str, str]:
    """Returns {name: display name} of all evaluations; linear ones with most labels come first."""
    known = {name: e for result in results for name, e in result.evaluations.items()}

    def order(name: str) -> tuple[bool, float]:
        not_linear, labels = evaluations.sort_key(name)
        return not_linear, -labels if not not_linear else 0.0

    names = sorted(known, key=order)
    return {name: display_names.evaluation_name(known[name]) for name in names}


def baseline_accuracies(results: Sequence[Result], name: str) -> dict[str, float]:
    """Returns {baseline: mean accuracy in per cent over the cells that have it}."""
    evals = [e for result in results for e in result.evaluations.values()]
    accuracies = {
        baseline: [
            accuracy
            for result in results
            if (accuracy := result.accuracy(name, baseline)) is not None
        ]
        for baseline in evaluations.baselines_in(evals)
    }
    return {baseline: statistics.mean(values) for baseline, values in accuracies.items() if values}


def to_csv(results: Sequence[Result]) -> str:
    """Returns the content of study.csv: one row per cell."""
    names = evaluation_names(results)
    keys = list(dict.fromkeys(key for result in results for key in result.others))
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    fixed = ["cell", "status", "batch", "length", "unit", "lr_rule", "base_lr", "lr", "seed"]
    measured = ["devices", "steps", "images", "final_loss", "noise_scale_images"]
    measured += ["images_per_second", "seconds", "exit", "same_as"]
    scored = [column for name in names for column in (f"{name}_percent", f"{name}_protocol")]
    writer.writerow([*fixed, *keys, *scored, *measured])
    for result in results:
        others = [_csv_text(result.others.get(key)) for key in keys]
        writer.writerow(_fixed_columns(result) + others + _measured_columns(result, names))
    return file.getvalue()


def _fixed_columns(result: Result) -> list[str]:
    cell = result.cell
    unit, length = result.length
    values = [cell.name, result.status, result.batch, length, unit]
    values += [result.rule, cell.config.optim.lr, cell.rate, result.seed]
    return [_csv_text(value) for value in values]


def _measured_columns(result: Result, names: dict[str, str]) -> list[str]:
    step = int(result.run.metrics[-1]["step"]) if result.run and result.run.metrics else None
    values: list[Any] = []
    for name in names:
        evaluation = result.evaluations.get(name)
        values += [result.accuracy(name), protocol_text(evaluation) if evaluation else None]
    values += [result.devices, step, step and step * result.batch, result.last_value("loss")]
    values += [result.last_value("noise_scale"), result.images_per_second]
    values += [result.record.get("seconds"), result.record.get("exit"), result.cell.same_as]
    return [_csv_text(value) for value in values]


def protocol_text(evaluation: Evaluation) -> str:
    """Returns the protocol of an evaluation in one line."""
    protocol = protocol_of(evaluation)
    facts = [display_names.evaluation_name(evaluation)]
    if is_number(protocol.get("draws")) and protocol["draws"] > 1:
        facts.append(f"mean of {protocol['draws']} draws")
    keys = ("train images", "test images")
    facts += [f"{key}: {protocol[key]}" for key in keys if key in protocol]
    return "; ".join(facts)


def _csv_text(value: Any) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
