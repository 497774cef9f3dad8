"""Statistics over several draws of labels, and the draws of folds."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import special

MOMENT_ROWS = 65_536  # rows that are converted to float64 at once


def ci95(values: Sequence[float]) -> float:
    """Returns half the width of the 95 % t-interval of the mean; 0 for a single value."""
    n = len(values)
    if n < 2:
        return 0.0
    return float(special.stdtrit(n - 1, 0.975) * np.std(values, ddof=1) / np.sqrt(n))


def summary(accuracies: Sequence[float]) -> dict[str, Any]:
    """Summarises the accuracies of several draws.

    Returns:
      {"accuracy": the mean, "std": the standard deviation (n - 1; 0 for one draw), "draws": all
      accuracies}, and "ci95" for more than one draw.
    """
    several = len(accuracies) > 1
    numbers = {
        "accuracy": float(np.mean(accuracies)),
        "std": float(np.std(accuracies, ddof=1)) if several else 0.0,
        "draws": list(accuracies),
    }
    return numbers | ({"ci95": ci95(accuracies)} if several else {})


def codes(train_y: np.ndarray, test_y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Maps labels to codes 0..k-1.

    Args:
      train_y: int [n], any integers.
      test_y: int [m], any integers.

    Returns:
      (train classes [k], train codes [n], test codes [m]). The code is -1 for a test label that
      train lacks.
    """
    classes, numbers = np.unique(train_y, return_inverse=True)
    known = np.searchsorted(classes, test_y).clip(max=len(classes) - 1)
    return classes, numbers, np.where(classes[known] == test_y, known, -1)


def stratified_folds(codes: np.ndarray, folds: int, rng: np.random.Generator) -> np.ndarray:
    """Draws stratified folds.

    Args:
      codes: int [n], the class of each row.
      folds: number of folds.
      rng: generator of the draw.

    Returns:
      int [n], the fold of each row. Folds differ by at most one row, per class and overall.
    """
    order = rng.permutation(len(codes))
    order = order[np.argsort(codes[order], kind="stable")]
    fold = np.empty(len(codes), int)
    fold[order] = np.arange(len(codes)) % folds
    return fold


def moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean and standard deviation [f] of the features x [n, f], to standardise them."""
    # In float64: NumPy adds rows one by one, so a million rows in float32 would lose 3 digits.
    mean = x.mean(axis=0, dtype=np.float64)
    blocks = np.array_split(x, max(1, len(x) // MOMENT_ROWS))
    variance = sum(np.square(block - mean).sum(axis=0) for block in blocks) / len(x)
    mean, deviation = mean.astype(x.dtype), np.sqrt(variance).astype(x.dtype)
    # A constant feature has no scale; dividing by its rounding error would invent one.
    return mean, np.where(deviation > 1e-6 * deviation.max(), deviation, 1.0)
