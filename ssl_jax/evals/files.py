"""Reads and writes the files of an evaluation in a workdir's eval/. Writes are atomic."""

import json
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ssl_jax.jobs import files, json_files
from ssl_jax.jobs.files import atomic_write
from ssl_jax.rundir.arrays import read_arrays

MAX_SAMPLE = 2000  # examples in sample.npz
PREDICTIONS = "predictions.npz"
LABEL = "label"  # column of the true labels in predictions.npz


def write(workdir: str | os.PathLike[str], results: Mapping[str, dict[str, Any]]) -> None:
    """Writes workdir/eval/<name>.json for every evaluation."""
    folder = _folder(workdir)
    for name, result in results.items():
        files.write(folder / f"{name}.json", json.dumps(result, indent=2, allow_nan=False) + "\n")


def read(workdir: str | os.PathLike[str], names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Returns {name: content of workdir/eval/<name>.json} of the files that exist.

    The content of a damaged file is {}.
    """
    paths = {name: pathlib.Path(workdir, "eval", f"{name}.json") for name in names}
    return {name: json_files.read_or_ignore(p) for name, p in paths.items() if p.exists()}


def remove_other_steps(workdir: str | os.PathLike[str], step: int) -> None:
    """Removes the numbers of other steps, so that no table mixes steps, and their predictions."""
    folder = _folder(workdir)
    others = [file for file in folder.glob("*.json") if _step(file) != step]
    if others:
        (folder / PREDICTIONS).unlink(missing_ok=True)
    for file in others:
        file.unlink()


def _step(file: pathlib.Path) -> int | None:
    return json_files.read_or_ignore(file).get("step")


def write_predictions(
    workdir: str | os.PathLike[str], label: np.ndarray, columns: Mapping[str, np.ndarray]
) -> None:
    """Adds columns to workdir/eval/predictions.npz; drops columns of other test examples.

    Args:
      workdir: workdir of the evaluation.
      label: int [m], labels of the test examples.
      columns: int [m] by evaluation, the predicted labels.
    """
    file = _folder(workdir) / PREDICTIONS
    old = read_arrays(file)
    if not np.array_equal(old.get(LABEL, ()), label):
        old = {}
    new = {name: np.asarray(x, np.int32) for name, x in {LABEL: label, **columns}.items()}
    _savez(file, old | new)


def write_sample(
    workdir: str | os.PathLike[str],
    *,
    features: np.ndarray,
    label: np.ndarray,
    pictures: np.ndarray | None,
    index: np.ndarray,
    classes: Sequence[str],
    saliency: np.ndarray | None,
) -> None:
    """Writes workdir/eval/sample.npz for the report: the first MAX_SAMPLE examples given.

    Args:
      workdir: workdir of the evaluation.
      features: float [n, f].
      label: int [n], -1 for a missing label.
      pictures: uint8 [n, h, w, 3]; None if the modality has no pictures.
      index: int [n], indices of the examples in their source.
      classes: class names; empty without labels.
      saliency: float16 [q, g, g] of the first q examples, see `evals.saliency`; None if saliency
        does not apply.
    """
    arrays: dict[str, np.ndarray] = {
        "features": np.asarray(features[:MAX_SAMPLE], np.float32),
        "label": np.asarray(label[:MAX_SAMPLE], np.int32),
        "index": np.asarray(index[:MAX_SAMPLE], np.int64),
        "classes": np.asarray(classes, str),
    }
    if pictures is not None:
        arrays["image"] = np.asarray(pictures[:MAX_SAMPLE], np.uint8)
    if saliency is not None:
        arrays["saliency"] = np.asarray(saliency, np.float16)
    _savez(_folder(workdir) / "sample.npz", arrays)


def _savez(file: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    with atomic_write(file) as archive:
        np.savez_compressed(archive, **arrays)  # type: ignore[arg-type]


def _folder(workdir: str | os.PathLike[str]) -> pathlib.Path:
    folder = files.inside(workdir, "eval")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
