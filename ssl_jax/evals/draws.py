"""Numbers that come from several draws: mean, deviation, interval; and the draws themselves."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import special

MOMENT_ROWS = 65_536  # taken to float64 at once


def ci95(values: Sequence[float]) -> float:
    """Half-width of the 95 % interval of the mean by Student's t; 0 for a single value."""
    n = len(values)
    if n < 2:
        return 0.0
    return float(special.stdtrit(n - 1, 0.975) * np.std(values, ddof=1) / np.sqrt(n))


def summary(accuracies: Sequence[float]) -> dict[str, Any]:
    """{"accuracy" (the mean), "std" (n - 1; 0 for one draw), "draws"}; "ci95" for more than one."""
    several = len(accuracies) > 1
    found = {
        "accuracy": float(np.mean(accuracies)),
        "std": float(np.std(accuracies, ddof=1)) if several else 0.0,
        "draws": list(accuracies),
    }
    return found | ({"ci95": ci95(accuracies)} if several else {})


def codes(train_y: np.ndarray, test_y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(classes of train, train labels as 0..k-1, test labels so too, -1 if train lacks the class).

    Args:
      train_y, test_y: int [n] and [m], any integers.
    """
    classes, numbers = np.unique(train_y, return_inverse=True)
    known = np.searchsorted(classes, test_y).clip(max=len(classes) - 1)
    return classes, numbers, np.where(classes[known] == test_y, known, -1)


def fold_of(codes: np.ndarray, folds: int, rng: np.random.Generator) -> np.ndarray:
    """Fold of every row, int [n]: of every class, and overall, folds differ by one row at most."""
    order = rng.permutation(len(codes))
    order = order[np.argsort(codes[order], kind="stable")]
    fold = np.empty(len(codes), int)
    fold[order] = np.arange(len(codes)) % folds
    return fold


def moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of every feature of x [n, f], to standardise it by."""
    # In float64: NumPy adds columns one by one, and a million rows would lose three digits.
    mean = x.mean(axis=0, dtype=np.float64)
    blocks = np.array_split(x, max(1, len(x) // MOMENT_ROWS))
    variance = sum(np.square(block - mean).sum(axis=0) for block in blocks) / len(x)
    mean, deviation = mean.astype(x.dtype), np.sqrt(variance).astype(x.dtype)
    # A constant feature has no scale; dividing by its rounding error would invent one.
    return mean, np.where(deviation > 1e-6 * deviation.max(), deviation, 1.0)
