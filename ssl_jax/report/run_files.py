"""Reads the files of a run. Files that do not exist yet give empty values."""

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
    """Files of a workdir; a file that does not exist is an empty value.

    Attributes:
      workdir: folder of the run.
      config: content of config.json.
      metadata: content of metadata.json.
      metrics: rows of metrics.jsonl, sorted by step, one row per step.
      evals: evaluations by file name without ".json".
      sample: arrays of eval/sample.npz: "features" float32 [n, f], "label" int32 [n] (-1: no
        label), "image" uint8 RGB [n, h, w, 3], "index" [n], "classes" (class names), and
        optionally "saliency" [m, g, g] of the first m examples.
      predictions: arrays of eval/predictions.npz: "label" [n], and predicted classes [n] under
        the name of each evaluation that predicts classes.
      pictures: {name: {"title", "caption"}} of the method's pictures, figures/NAME.png.
    """

    workdir: pathlib.Path
    config: dict[str, Any]
    metadata: dict[str, Any]
    metrics: list[dict[str, Any]]
    evals: dict[str, dict[str, Any]]
    sample: dict[str, np.ndarray]
    predictions: dict[str, np.ndarray]
    pictures: dict[str, dict[str, str]]

    @property
    def method(self) -> str:
        """Name of the method in the config, "" if the config does not name one."""
        return str(self.config.get("method", {}).get("name", ""))

    @property
    def batch_size(self) -> int:
        """Images per global batch, 0 if the config does not say."""
        return int(self.config.get("train", {}).get("batch_size", 0))

    @property
    def pretrained(self) -> dict[str, Any]:
        """Source of imported weights ("path", "origin"); {} if the run trained its weights."""
        return self.config.get("pretrained", {})

    @property
    def classes(self) -> list[str]:
        """Class names from the sample; [] without a sample."""
        return [str(name) for name in self.sample.get("classes", ())]


def class_name(label: int, classes: Sequence[str]) -> str:
    """Returns the name of a class, its number if it has no name, "" for a negative label."""
    if label < 0:
        return ""
    return classes[label] if label < len(classes) else str(label)


def read_run(workdir: str | os.PathLike[str]) -> Run:
    """Reads the files of a workdir.

    Raises:
      Fault: MISSING_INPUT if the folder holds no run, BAD_DATA if a file is damaged.
    """
    folder = pathlib.Path(workdir)
    if not folder.is_dir():
        raise Fault(f"{folder}: no such folder. Pass the folder of a run.", MISSING_INPUT)
    if not (folder / "config.json").exists() and not (folder / "metrics.jsonl").exists():
        raise Fault(
            f"{folder}: contains neither config.json nor metrics.jsonl; train there first",
            MISSING_INPUT,
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
        pictures=_pictures(_json(folder / "figures" / "pictures.json")),
    )


def metric_series(run: Run, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the steps and values, float64 [n] each, at which a metric is logged and finite."""
    pairs = [
        (row["step"], row[key])
        for row in run.metrics
        if isinstance(row.get(key), int | float) and math.isfinite(row[key])
    ]
    steps, values = np.array(pairs, float).reshape(-1, 2).T
    return steps, values


def _pictures(texts: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Selects the entries whose name is a plain file name and which have title and caption."""
    return {
        name: {key: str(text[key]) for key in ("title", "caption")}
        for name, text in texts.items()
        if name.isidentifier() and isinstance(text, dict) and {"title", "caption"} <= text.keys()
    }


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
            continue  # the run was killed while it wrote the line; resuming logs the step again
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
        raise Fault(f"{path}: unreadable ({error}); evaluate the run again", BAD_DATA) from error
