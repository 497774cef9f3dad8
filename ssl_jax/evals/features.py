"""Collects the features of a whole data set from batches padded to one size."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from ssl_jax.errors import BAD_DATA, NUMERIC, Fault

IN_FLIGHT = 4  # batches: hides the host's work behind the device's with little memory

Batch = dict[str, np.ndarray]


def collect(
    fn: Callable[[Batch], Mapping[str, Any]], batches: Iterable[Batch]
) -> dict[str, np.ndarray]:
    """Applies `fn` to every batch and drops the rows of padding.

    Batches are dispatched ahead of the copies back, so device and host work at the same time.

    Args:
      fn: batch -> the columns to keep, arrays [b, ...] that this process can read, and "mask"
        bool [b], False on padding. b counts the rows of all processes if `fn` gathers them.
      batches: arguments of `fn`, for example batches of `pipeline.eval_batches`.

    Returns:
      The columns of all real rows, [n, ...] each, in the order of the batches.

    Raises:
      Fault: there is no example, or a feature is NaN or infinite.
    """
    pending: deque[Mapping[str, Any]] = deque()
    parts: list[dict[str, np.ndarray]] = []

    def copy_oldest() -> None:
        batch = {name: np.asarray(column) for name, column in pending.popleft().items()}
        real = batch.pop("mask").astype(bool)
        parts.append({name: column[real] for name, column in batch.items()})

    for batch in batches:
        pending.append(fn(batch))
        if len(pending) > IN_FLIGHT:
            copy_oldest()
    while pending:
        copy_oldest()
    columns = {name: np.concatenate([p[name] for p in parts]) for name in (parts or [{}])[0]}
    if not columns or not min(map(len, columns.values())):
        raise Fault("evaluation: the split holds no example; check data.split", BAD_DATA)
    for name, column in columns.items():
        _check_finite(name, column)
    return columns


def _check_finite(name: str, column: np.ndarray) -> None:
    if np.issubdtype(column.dtype, np.floating) and not np.isfinite(column).all():
        bad = int((~np.isfinite(column.reshape(len(column), -1)).all(axis=1)).sum())
        raise Fault(
            f"evaluation: {bad} of {len(column)} examples have {name} features that are not "
            "finite; evaluate an earlier checkpoint",
            NUMERIC,
        )
