"""Compares the outputs of an export with those of the backbone, and records how to repeat it."""

from typing import Any

import numpy as np

from ssl_jax.errors import NUMERIC, Fault
from ssl_jax.export.formats import Input
from ssl_jax.export.subject import Subject

SEED = 0
TOLERANCE = 1e-5  # limit of the largest difference divided by the largest output


def images(subject: Subject) -> np.ndarray:
    """Returns two seeded images of the subject's size, float32 [2, s, s, c] in [0, 1]."""
    return np.random.default_rng(SEED).uniform(size=_shape(subject)).astype(np.float32)


def _shape(subject: Subject) -> tuple[int, int, int, int]:
    return 2, subject.size, subject.size, subject.backbone.channels


def nchw(x: np.ndarray) -> np.ndarray:
    """Transposes [n, h, w, c] to a contiguous [n, c, h, w]."""
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2))


def relative_error(actual: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> float:
    """Returns the largest difference divided by the largest expected value, for the worst output.

    The result is infinite if names or shapes differ, or if a value is not finite.
    """
    if actual.keys() != expected.keys() or any(
        actual[k].shape != expected[k].shape for k in expected
    ):
        return float("inf")
    errors = [np.abs(actual[k] - expected[k]).max() / np.abs(expected[k]).max() for k in expected]
    return float(np.max(errors)) if np.isfinite(errors).all() else float("inf")


def require_agreement(
    outputs: dict[str, dict[str, np.ndarray]], expected: dict[str, np.ndarray], what: str
) -> dict[str, float]:
    """Returns the relative error of each reader.

    Args:
      outputs: outputs by reader and name.
      expected: outputs of the backbone by name.
      what: name of the export, for the error message.

    Raises:
      Fault: with code NUMERIC if an error is above `TOLERANCE`.
    """
    errors = {reader: relative_error(actual, expected) for reader, actual in outputs.items()}
    for reader, error in errors.items():
        if not error <= TOLERANCE:
            raise Fault(
                f"{what}: read back by {reader}, it gives different features (relative error "
                f"{error:.1e}, limit {TOLERANCE:g}). The new export was deleted; an earlier export "
                "was kept. Please report this with the model's config",
                NUMERIC,
            )
    return errors


def record(
    subject: Subject,
    name: str,
    image_input: Input,
    expected: dict[str, np.ndarray],
    errors: dict[str, float],
) -> dict[str, Any]:
    """Returns the contents of check.json.

    Args:
      subject: the exported backbone.
      name: name of the format.
      image_input: the images that the export expects.
      expected: outputs of the backbone for `images` by name.
      errors: relative error by reader.
    """
    mean, std = subject.standardisation
    shape = list(_shape(subject))
    steps = [f"numpy.random.default_rng({SEED}).uniform(size={shape}).astype('float32')"]
    if image_input.standardised and (any(mean) or set(std) != {1.0}):
        steps.append(f"(images - {list(mean)}) / {list(std)}")
    if image_input.layout == "NCHW":
        steps.append("images.transpose(0, 3, 1, 2)")
    backbone = subject.backbone
    return {
        "format": name,
        "model": subject.model,
        "size": backbone.size,
        "crop": backbone.crop,
        "classes": list(subject.classes),
        "origin": backbone.origin,
        "outputs": list(expected),
        "input": {"seed": SEED, "shape": shape, "layout": image_input.layout, "steps": steps},
        **{key: _round(value) for key, value in expected.items()},
        "tolerance": TOLERANCE,
        "measure": "largest difference divided by the largest expected value, for each output",
        "precision": "float32; on TPUs and GPUs, request full precision of matrix products",
        "error": errors,
    }


def _round(array: np.ndarray) -> list[list[float]]:
    """Rounds to 9 digits, which identify a float32."""
    return [[float(f"{value:.9g}") for value in row] for row in array.tolist()]
