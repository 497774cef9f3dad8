"""What a run left on disk, read with tolerance for what is not there yet."""

import json
import math
import os
import pathlib
import zipfile
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ssl_jax.errors import BAD_DATA, MISSING_INPUT, Fault


class Run(NamedTuple):
    """The files of a workdir; an absent file is an empty value."""

    workdir: pathlib.Path
    config: dict[str, Any]
    metadata: dict[str, Any]
    metrics: list[dict[str, Any]]  # by step, one row a step
    evals: dict[str, dict[str, Any]]  # file name without .json -> evaluation
    sample: dict[str, np.ndarray]  # features, label, image, index, classes, perhaps saliency
    predictions: dict[str, np.ndarray]  # label, and a column for every evaluation that predicts

    @property
    def method(self) -> str:
        """Name of the method, "" when the config does not say."""
        return str(self.config.get("method", {}).get("name", ""))

    @property
    def batch_size(self) -> int:
        """Images in a global batch, 0 when the config does not say."""
        return int(self.config.get("train", {}).get("batch_size", 0))

    @property
    def pretrained(self) -> dict[str, Any]:
        """Where the weights came from, if the run did not train any: "path" and "origin"."""
        return self.config.get("pretrained", {})

    @property
    def classes(self) -> list[str]:
        """Class names, as far as the sample tells them."""
        return [str(name) for name in self.sample.get("classes", ())]


def class_name(code: int, classes: Sequence[str]) -> str:
    """Name of a class, its number when there is no name, "" without a label."""
    if code < 0:
        return ""
    return classes[code] if code < len(classes) else str(code)


def read(workdir: str | os.PathLike[str]) -> Run:
    """Reads a workdir; raises Fault when it holds no run or a file of it is damaged."""
    folder = pathlib.Path(workdir)
    if not folder.is_dir():
        raise Fault(f"{folder}: no such folder; --workdir is a run's folder", MISSING_INPUT)
    if not (folder / "config.json").exists() and not (folder / "metrics.jsonl").exists():
        raise Fault(
            f"{folder}: neither config.json nor metrics.jsonl; train there first", MISSING_INPUT
        )
    evals = {path.stem: _json(path) for path in sorted(folder.glob("eval/[!.]*.json"))}
    return Run(
        workdir=folder,
        config=_json(folder / "config.json"),
        metadata=_json(folder / "metadata.json"),
        metrics=_metrics(folder / "metrics.jsonl"),
        evals={name: result for name, result in evals.items() if "results" in result},
        sample=_arrays(folder / "eval" / "sample.npz"),
        predictions=_arrays(folder / "eval" / "predictions.npz"),
    )


def series(run: Run, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of a metric, both [n], where it was logged and is finite."""
    pairs = [
        (row["step"], row[key])
        for row in run.metrics
        if isinstance(row.get(key), int | float) and math.isfinite(row[key])
    ]
    steps, values = np.array(pairs, float).reshape(-1, 2).T
    return steps, values


def _json(path: pathlib.Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        value = json.loads(path.read_text())
    except ValueError as error:
        raise Fault(f"{path}: not JSON ({error}); delete it or restore it", BAD_DATA) from error
    return value if isinstance(value, dict) else {}


def _metrics(path: pathlib.Path) -> list[dict[str, Any]]:
    rows: dict[int, dict[str, Any]] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue  # a run killed in the middle of a line; resuming logs that step again
        if isinstance(row, dict) and "step" in row:
            rows[row["step"]] = rows.get(row["step"], {}) | row
    return [rows[step] for step in sorted(rows)]


def _arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    if not path.exists():
        return {}
    try:
        with np.load(path) as arrays:
            return dict(arrays)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise Fault(f"{path}: unreadable ({error}); evaluate again", BAD_DATA) from error
