"""The comparison that an export must pass, and the record by which anyone repeats it."""

from typing import Any

import numpy as np

from ssl_jax.errors import NUMERIC, Fault
from ssl_jax.export.formats import Input
from ssl_jax.export.subject import Subject

SEED = 0
TOLERANCE = 1e-5  # largest difference over the largest output


def images(size: int) -> np.ndarray:
    """Float32 [2, size, size, 3] in [0, 1], the same everywhere."""
    return np.random.default_rng(SEED).uniform(size=(2, size, size, 3)).astype(np.float32)


def nchw(x: np.ndarray) -> np.ndarray:
    """[n, h, w, c] to [n, c, h, w], in memory as well."""
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2))


def error(got: dict[str, np.ndarray], want: dict[str, np.ndarray]) -> float:
    """Of every output the largest difference over the largest value; the worst of them.

    Infinite where shapes or names differ or a number is none.
    """
    if got.keys() != want.keys() or any(got[k].shape != want[k].shape for k in want):
        return float("inf")
    worst = [np.abs(got[k] - want[k]).max() / np.abs(want[k]).max() for k in want]
    return float(np.max(worst)) if np.isfinite(worst).all() else float("inf")


def require(found: dict[str, dict[str, np.ndarray]], want: dict[str, np.ndarray], what: str) -> Any:
    """{reader: error} of what each reader got.

    Raises:
      Fault: NUMERIC, one of them above the tolerance.
    """
    errors = {reader: error(got, want) for reader, got in found.items()}
    for reader, value in errors.items():
        if not value <= TOLERANCE:
            raise Fault(
                f"{what}: read back by {reader} it gives other features, off by {value:.1e} of the "
                f"largest (at most {TOLERANCE:g}); it was not kept, an earlier export stays. "
                "Please report this with the model's config",
                NUMERIC,
            )
    return errors


def record(
    subject: Subject, name: str, given: Input, want: dict[str, np.ndarray], errors: dict[str, float]
) -> dict[str, Any]:
    """Contents of check.json."""
    mean, std = subject.standardisation
    shape = [2, subject.size, subject.size, 3]
    steps = [f"numpy.random.default_rng({SEED}).uniform(size={shape}).astype('float32')"]
    if given.standardised and (any(mean) or set(std) != {1.0}):
        steps.append(f"(images - {list(mean)}) / {list(std)}")
    if given.layout == "NCHW":
        steps.append("images.transpose(0, 3, 1, 2)")
    backbone = subject.backbone
    return {
        "format": name,
        "model": subject.model,
        "size": backbone.size,
        "crop": backbone.crop,
        "classes": list(subject.classes),
        "origin": backbone.origin,
        "outputs": list(want),
        "input": {"seed": SEED, "shape": shape, "layout": given.layout, "steps": steps},
        **{key: _numbers(value) for key, value in want.items()},
        "tolerance": TOLERANCE,
        "measure": "largest difference over the largest expected value, of each output",
        "precision": "float32, matrix products not reduced (on TPUs and GPUs: ask for it)",
        "error": errors,
    }


def _numbers(array: np.ndarray) -> list[list[float]]:
    """With as many digits as float32 has."""
    return [[float(f"{value:.9g}") for value in row] for row in array.tolist()]
