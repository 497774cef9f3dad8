"""The files of an evaluation in a workdir's eval/, each whole or not there."""

import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ssl_jax.jobs.files import atomic_write

MAX_SAMPLE = 2000
PREDICTIONS = "predictions.npz"
LABEL = "label"


def write(workdir: str | os.PathLike[str], results: Mapping[str, dict[str, Any]]) -> None:
    """Writes workdir/eval/<name>.json for every evaluation."""
    folder = _folder(workdir)
    for name, result in results.items():
        text = json.dumps(result, indent=2, allow_nan=False) + "\n"
        with atomic_write(folder / f"{name}.json") as file:
            file.write(text.encode())


def forget_other_steps(workdir: str | os.PathLike[str], step: int) -> None:
    """Removes numbers of other steps, lest one table mix them, and predictions with them."""
    folder = _folder(workdir)
    others = [file for file in folder.glob("*.json") if _step(file) != step]
    if others:
        (folder / PREDICTIONS).unlink(missing_ok=True)
    for file in others:
        file.unlink()


def _step(file: pathlib.Path) -> int | None:
    return json.loads(file.read_text()).get("step")


def write_predictions(
    workdir: str | os.PathLike[str], label: np.ndarray, columns: Mapping[str, np.ndarray]
) -> None:
    """Adds columns to workdir/eval/predictions.npz; those of other test images are dropped.

    Args:
      label: int [m], of the test images.
      columns: by evaluation, what it takes every test image for, int [m].
    """
    file = _folder(workdir) / PREDICTIONS
    kept: dict[str, np.ndarray] = {}
    if file.exists():
        with np.load(file) as arrays:
            kept = dict(arrays)
    if not np.array_equal(kept.get(LABEL, ()), label):
        kept = {}
    new = {name: np.asarray(x, np.int32) for name, x in {LABEL: label, **columns}.items()}
    _savez(file, kept | new)


def write_sample(
    workdir: str | os.PathLike[str],
    *,
    features: np.ndarray,
    label: np.ndarray,
    image: np.ndarray | None,
    index: np.ndarray,
    classes: Sequence[str],
    saliency: np.ndarray | None,
) -> None:
    """Writes workdir/eval/sample.npz for the report: test examples, at most MAX_SAMPLE of them.

    Args:
      features: float [n, f].
      label: int [n], -1 where there is none.
      image: pictures, uint8 [n, h, w, 3]; None if the modality has none.
      index: int [n], of the examples in their source.
      classes: class names, empty without labels.
      saliency: float16 [q, g, g], of the first q pictures; see `evals.saliency`. None if the
        modality has none.
    """
    arrays: dict[str, np.ndarray] = {
        "features": np.asarray(features[:MAX_SAMPLE], np.float32),
        "label": np.asarray(label[:MAX_SAMPLE], np.int32),
        "index": np.asarray(index[:MAX_SAMPLE], np.int64),
        "classes": np.asarray(classes, str),
    }
    if image is not None:
        arrays["image"] = np.asarray(image[:MAX_SAMPLE], np.uint8)
    if saliency is not None:
        arrays["saliency"] = np.asarray(saliency, np.float16)
    _savez(_folder(workdir) / "sample.npz", arrays)


def _savez(file: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    with atomic_write(file) as archive:
        np.savez_compressed(archive, **arrays)  # type: ignore[arg-type]


def _folder(workdir: str | os.PathLike[str]) -> pathlib.Path:
    folder = pathlib.Path(workdir, "eval")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
