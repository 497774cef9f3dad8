"""Features of a whole data set, from batches padded to one size."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from ssl_jax.errors import BAD_DATA, NUMERIC, Fault

IN_FLIGHT = 4  # batches: enough to hide the host's work behind the device's, little memory

Batch = dict[str, np.ndarray]


def extract(
    fn: Callable[[Batch], Mapping[str, Any]], batches: Iterable[Batch]
) -> dict[str, np.ndarray]:
    """Applies `fn` to every batch and drops the padding, so that the last partial batch counts.

    Batches are dispatched ahead of the copies back, so device and host work at the same time.

    Args:
      fn: {"image" uint8 [b, h, w, 3], "label" int [b], "index" int [b], "mask" bool [b], False on
        padding} -> the columns to keep, arrays [b', ...] that this process can read, and "mask"
        [b'] of their rows; b' is b, or all processes' rows when `fn` gathers them.
      batches: for `fn`, one after the other.

    Returns:
      The columns of all real rows, [n, ...] each, in the order of the batches.

    Raises:
      Fault: no example at all, or a feature that is NaN or infinite.
    """
    pending: deque[Mapping[str, Any]] = deque()
    parts: list[dict[str, np.ndarray]] = []

    def collect() -> None:
        columns = {name: np.asarray(column) for name, column in pending.popleft().items()}
        real = columns.pop("mask").astype(bool)
        parts.append({name: column[real] for name, column in columns.items()})

    for batch in batches:
        pending.append(fn(batch))
        if len(pending) > IN_FLIGHT:
            collect()
    while pending:
        collect()
    found = {name: np.concatenate([p[name] for p in parts]) for name in (parts or [{}])[0]}
    if not found or not min(map(len, found.values())):
        raise Fault("evaluation: the split holds no example; check data.split", BAD_DATA)
    for name, column in found.items():
        _check_finite(name, column)
    return found


def _check_finite(name: str, column: np.ndarray) -> None:
    if np.issubdtype(column.dtype, np.floating) and not np.isfinite(column).all():
        bad = int((~np.isfinite(column.reshape(len(column), -1)).all(axis=1)).sum())
        raise Fault(
            f"evaluation: {bad} of {len(column)} examples have {name} features that are not "
            "finite; evaluate an earlier checkpoint",
            NUMERIC,
        )
