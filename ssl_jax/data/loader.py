"""Loads single examples for the pipeline and applies the policy for unreadable ones."""

import contextlib
import logging
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np

from ssl_jax.data.source import Labels, Record, Source, Spec
from ssl_jax.errors import BAD_DATA, Fault

ZEROS_LENGTH = 32  # length of a `None` axis, if no record could be read
_ALWAYS = 5  # unreadable examples that every data set of at least 50 may have
_FIND_ALL = "`ssl-jax preview --check` lists all unreadable examples."
_log = logging.getLogger(__name__)


def tolerated(size: int, max_bad: float) -> int:
    """Returns the number of unreadable examples that quarantine accepts.

    A fraction for large data would allow none in small data: 0.1 % of 65 examples is 0. Therefore 5
    examples are always allowed, or a tenth of fewer than 50 examples.

    Args:
      size: number of examples.
      max_bad: largest fraction.
    """
    return max(int(max_bad * size), min(_ALWAYS, size // 10))


class Loader:
    """Loads examples in many threads and raises no exception there.

    TensorFlow would replace an exception of its threads by another type with a long text. The
    loader therefore stores the exception and marks its row. The consumer of the row raises it with
    `raise_first`.

    Args:
      source: the examples.
      record: the arrays of a record, in the order in which they are returned.
      quarantine: replace or mask unreadable examples instead of failing.
      max_bad: largest tolerated fraction of unreadable examples; see `tolerated`.

    Attributes:
      bad: {index: reason} of the unreadable examples so far.
    """

    def __init__(self, source: Source, record: Spec, *, quarantine: bool, max_bad: float):
        self.bad: dict[int, str] = {}
        self._source = source
        self._record, self._names = record, list(record)
        # Stands for a record that was not read. A real record has lengths that the input accepts.
        self._stand_in: list[Any] | None = None
        self._zeros = [
            np.zeros([ZEROS_LENGTH if n is None else n for n in shape], dtype)
            for dtype, shape in record.values()
        ]
        self._quarantine = quarantine
        self._max_bad = max_bad
        self._failures: dict[int, Exception] = {}
        self._lock = threading.Lock()

    def load_or_replace(self, index: np.ndarray) -> list[Any]:
        """Returns [*record, label, index, failure] of the first readable example from `index` on.

        The result depends only on the index and the data, so all hosts agree on it. `failure` is
        -1, or the number under which the exception is stored.
        """
        for candidate in range(int(index), int(index) + self._source.size):
            try:
                loaded = self._load(candidate % self._source.size)
            except Exception as error:
                return self._failed(np.int64(index), error)
            if loaded:
                used = np.int64(candidate % self._source.size)
                return [*self._arrays(loaded), used, np.int64(-1)]
        nothing = Fault(f"no example of {self._source.name} is readable", BAD_DATA)
        return self._failed(np.int64(index), nothing)

    def load_or_mask(self, index: np.ndarray) -> list[Any]:
        """Returns [*record, label, mask, failure]; mask is False if no example was read.

        No example is read for an index in quarantine, or for a negative index, which is padding.
        """
        try:
            loaded = self._load(int(index)) if index >= 0 else None
        except Exception as error:
            return self._failed(np.bool_(False), error)
        if loaded is None:
            return [*self._any_record(), np.int32(-1), np.bool_(False), np.int64(-1)]
        return [*self._arrays(loaded), np.bool_(True), np.int64(-1)]

    def raise_any(self) -> None:
        """Raises the first stored exception, if there is one."""
        if self._failures:
            raise self._failures[0]

    def raise_first(self, failure: np.ndarray) -> None:
        """Raises the exception of the first failed row of a batch, if any row failed."""
        failed = failure[failure >= 0]
        if len(failed):
            raise self._failures[int(failed[0])]

    def _arrays(self, loaded: tuple[Record, Labels]) -> list[Any]:
        record, labels = loaded
        arrays = [record[name] for name in self._names]
        self._stand_in = self._stand_in or arrays
        return [*arrays, np.int32(self._source.label(labels))]

    def _any_record(self) -> list[Any]:
        """Returns the arrays of some readable record, for a row that is masked anyway."""
        if self._stand_in is None and self._source.size:
            with contextlib.suppress(Exception):
                self._arrays(self._source.load(0))
        return self._stand_in or self._zeros

    def _failed(self, index_or_mask: Any, error: Exception) -> list[Any]:
        """Stores the exception; returns the outputs of a failed row."""
        with self._lock:
            number = len(self._failures)
            self._failures[number] = error
        return [*(self._stand_in or self._zeros), np.int32(-1), index_or_mask, np.int64(number)]

    def _load(self, index: int) -> tuple[Record, Labels] | None:
        """Returns (record, labels), or None if the example is in quarantine."""
        if index in self.bad:
            return None
        try:
            loaded = self._source.load(index)
        except ValueError as error:
            self._report(index, str(error))
            return None
        if problem := self._problem(loaded):
            where = self._source.describe(index)
            raise Fault(f"{where}: the source {self._source.name} {problem}", BAD_DATA)
        return loaded

    def _problem(self, loaded: Any) -> str:
        """Says how a loaded example breaks the contract of `Source.load`; "" if it does not."""
        if not (isinstance(loaded, tuple) and len(loaded) == 2):
            return f"must load (record, labels), got {type(loaded).__name__}"
        record, labels = loaded
        if not (isinstance(record, Mapping) and isinstance(labels, Mapping)):
            return "must load a dict of arrays and a dict of labels"
        for name, (dtype, shape) in self._record.items():
            array = record.get(name)
            if not isinstance(array, np.ndarray) or array.dtype != dtype:
                kind = getattr(array, "dtype", type(array).__name__)
                return f"must load {name!r} as an array of {np.dtype(dtype)}, got {kind}"
            fits = (n in (None, length) for n, length in zip(shape, array.shape, strict=False))
            if array.ndim != len(shape) or not all(fits):
                return f"must load {name!r} of shape {shape}, got {array.shape}"
        label, classes = self._source.label(dict(labels)), len(self._source.classes)
        if not isinstance(label, int | np.integer) or not -1 <= label < max(classes, 0):
            valid = f"-1 or a number below {classes}" if classes else "-1 without classes"
            return f"has the label {label!r}; a label is {valid}"
        return ""

    def _report(self, index: int, reason: str) -> None:
        """Puts an example into quarantine, or raises Fault."""
        where = self._source.describe(index)
        if not self._quarantine:
            raise Fault(
                f"{where}: {reason}. Repair or remove it, or replace it in training by "
                f"--config.data.on_bad_image=quarantine. {_FIND_ALL}",
                BAD_DATA,
            )
        with self._lock:
            if index in self.bad:
                return
            self.bad[index] = reason
            count = len(self.bad)
        _log.warning("unreadable, put into quarantine: %s: %s", where, reason)
        size = self._source.size
        if count > (limit := tolerated(size, self._max_bad)):
            raise Fault(
                f"{count} of {size} examples are unreadable, and data.max_bad={self._max_bad:g} "
                f"allows {limit}; the last is {where}: {reason}. Repair the data, or raise "
                f"--config.data.max_bad. {_FIND_ALL}",
                BAD_DATA,
            )
