"""Reads the files of a run. Files that are missing or damaged give empty values."""

import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ssl_jax.config import missing_values
from ssl_jax.errors import BAD_DATA, MISSING_INPUT, Fault
from ssl_jax.jobs import files, json_files
from ssl_jax.jobs.json_files import is_number
from ssl_jax.rundir.arrays import read_arrays
from ssl_jax.rundir.metrics import parse_row

SECTIONS = ("data", "method", "model", "train", "pretrained")  # of a config; each is an object
MAX_CLASSES = 2**15  # of predictions; a confusion matrix has this many rows and columns


class Run(NamedTuple):
    """Files of a workdir; a file that is missing or damaged is an empty value.

    Attributes:
      workdir: folder of the run.
      config: content of config.json, with the hyperparameters that the method gained later.
      metadata: content of metadata.json.
      metrics: numbers of metrics.jsonl, sorted by step, one row per step.
      evals: evaluations by file name without ".json"; their "protocol" is a dict.
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
        size = self.config.get("train", {}).get("batch_size")
        return int(size) if is_number(size) else 0

    @property
    def noun(self) -> str:
        """Word for one example."""
        return str(self.metadata.get("noun") or "image")  # older runs have images

    @property
    def pretrained(self) -> dict[str, Any]:
        """Source of imported weights ("path", "origin"); {} if the run trained its weights."""
        return self.config.get("pretrained", {})

    @property
    def has_words(self) -> bool:
        """True if the run trained word vectors."""
        return self.config.get("data", {}).get("source") == "text"

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
      Fault: MISSING_INPUT if the folder holds no run, BAD_DATA if its config.json is damaged.
    """
    folder = pathlib.Path(workdir)
    if not folder.is_dir():
        raise Fault(f"{folder}: no such folder. Pass the folder of a run.", MISSING_INPUT)
    if not (folder / "config.json").exists() and not (folder / "metrics.jsonl").exists():
        raise Fault(
            f"{folder}: contains neither config.json nor metrics.jsonl; train there first",
            MISSING_INPUT,
        )
    evals = {path.stem: _evaluation(path) for path in sorted(folder.glob("eval/[!.]*.json"))}
    return Run(
        workdir=folder,
        config=_config(folder / "config.json"),
        metadata=json_files.read_or_ignore(folder / "metadata.json"),
        metrics=_metrics(folder / "metrics.jsonl"),
        evals={name: result for name, result in evals.items() if "results" in result},
        sample=_sample(folder / "eval" / "sample.npz"),
        predictions=_predictions(folder / "eval" / "predictions.npz"),
        pictures=_pictures(json_files.read_or_ignore(folder / "figures" / "pictures.json")),
    )


def metric_series(run: Run, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the steps and values, float64 [n] each, at which a metric is logged and finite."""
    pairs = [(row["step"], row[key]) for row in run.metrics if row.get(key) is not None]
    steps, values = np.array(pairs, float).reshape(-1, 2).T
    return steps, values


def _pictures(texts: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Selects the entries whose name is a plain file name and which have title and caption."""
    return {
        name: {key: str(text[key]) for key in ("title", "caption")}
        for name, text in texts.items()
        if name.isidentifier() and isinstance(text, dict) and {"title", "caption"} <= text.keys()
    }


def protocol_of(evaluation: dict[str, Any]) -> dict[str, Any]:
    """Returns the fields of the protocol of an evaluation; {} if it has none."""
    protocol = evaluation.get("protocol")
    return protocol if isinstance(protocol, dict) else {}


def read_figure(run: Run, name: str) -> bytes:
    """Returns the content of figures/NAME.png; b"" if it is missing.

    A link out of the workdir is ignored with a logged line: a page must not publish other files.
    """
    path = run.workdir / "figures" / f"{name}.png"
    try:
        files.inside(run.workdir, path)
        return files.read(path)
    except FileNotFoundError:
        return b""
    except (OSError, Fault) as error:
        json_files.log_ignored(path, error)
        return b""


def _config(path: pathlib.Path) -> dict[str, Any]:
    try:
        config = json_files.read_object(path)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise Fault(f"{path}: not JSON ({error}); delete it or restore it", BAD_DATA) from error
    config = {k: v for k, v in config.items() if isinstance(v, dict) or k not in SECTIONS}
    if missing := missing_values(config):
        config["method"] = config["method"] | missing
    return config


def _evaluation(path: pathlib.Path) -> dict[str, Any]:
    evaluation = json_files.read_or_ignore(path)
    return evaluation | {"protocol": protocol_of(evaluation)}


def _metrics(path: pathlib.Path) -> list[dict[str, Any]]:
    try:
        lines = files.read(path).splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        json_files.log_ignored(path, error)
        return []
    rows: dict[int, dict[str, Any]] = {}
    for row in map(parse_row, lines):  # {} for a line that a killed run left unfinished
        if row:
            rows[row["step"]] = rows.get(row["step"], {}) | row
    return [rows[step] for step in sorted(rows)]


def _sample(path: pathlib.Path) -> dict[str, np.ndarray]:
    sample = read_arrays(path)
    if not sample:
        return {}
    features, label = sample.get("features", np.empty(0)), sample.get("label", np.empty(0))
    image, heat = sample.get("image"), sample.get("saliency")
    n = len(features) if features.ndim else 0
    pictures = (n, *image.shape[1:3], 3) if image is not None else ()
    valid = [
        features.ndim == 2 and features.size and features.dtype.kind == "f",
        features.dtype.kind == "f" and np.isfinite(features).all(),
        label.shape == (n,) and label.dtype.kind in "iu",
        sample.get("classes", np.empty(0, str)).dtype.kind == "U",
        image is None or (image.shape == pictures and image.dtype == np.uint8 and image.size),
        heat is None
        or (image is not None and heat.ndim == 3 and len(heat) <= n and heat.dtype.kind == "f"
            and np.isfinite(heat).all()),
    ]  # fmt: skip
    return sample if _kept(path, all(valid)) else {}


def _predictions(path: pathlib.Path) -> dict[str, np.ndarray]:
    columns = read_arrays(path)
    shapes = {column.shape for column in columns.values()}
    integers = all(column.dtype.kind in "iu" for column in columns.values())
    small = integers and all((column < MAX_CLASSES).all() for column in columns.values())
    valid = small and len(shapes) == 1 and all(len(shape) == 1 for shape in shapes)
    return columns if not columns or _kept(path, valid) else {}


def _kept(path: pathlib.Path, valid: bool) -> bool:
    if not valid:
        json_files.log_ignored(path, ValueError("its arrays do not fit together"))
    return valid
