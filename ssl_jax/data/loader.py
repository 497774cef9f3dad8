"""Reads single examples for the pipeline and decides what becomes of unreadable ones."""

import logging
import threading

import numpy as np

from ssl_jax.data.sources import Source
from ssl_jax.errors import BAD_DATA, Fault

_BLANK = np.zeros((32, 32, 3), np.uint8)
_log = logging.getLogger(__name__)


class Loader:
    """Loads examples from many threads; never raises there.

    An exception inside a TensorFlow thread comes out as another type below a wall of text, so it is
    kept here, its row is marked, and whoever takes the row out raises it (`raise_first`).

    Args:
      source: the examples.
      quarantine: replace or mask out unreadable examples instead of failing.
      max_bad: largest fraction of unreadable examples.
    """

    def __init__(self, source: Source, *, quarantine: bool, max_bad: float):
        self.bad: dict[int, str] = {}
        self._source = source
        self._quarantine = quarantine
        self._max_bad = max_bad
        self._failures: dict[int, Exception] = {}
        self._lock = threading.Lock()

    def replaced(self, index: np.ndarray) -> tuple[np.ndarray, np.int32, np.int64, np.int64]:
        """Returns (image, label, index, failure) of the first readable of index, index + 1, ...

        Which one that is follows from the index and the data alone, so all hosts agree on it.
        `failure` is -1, or the number under which what went wrong is kept.
        """
        for candidate in range(int(index), int(index) + self._source.size):
            try:
                loaded = self._load(candidate % self._source.size)
            except Exception as error:
                return _BLANK, np.int32(-1), np.int64(index), self._keep(error)
            if loaded:
                image, label = loaded
                return image, np.int32(label), np.int64(candidate % self._source.size), np.int64(-1)
        nothing = Fault(f"no image of {self._source.name} is readable", BAD_DATA)
        return _BLANK, np.int32(-1), np.int64(index), self._keep(nothing)

    def masked(self, index: np.ndarray) -> tuple[np.ndarray, np.int32, np.bool_, np.int64]:
        """Returns (image, label, mask, failure); mask is False where nothing was read.

        That is an index in quarantine, or a negative one (padding).
        """
        try:
            loaded = self._load(int(index)) if index >= 0 else None
        except Exception as error:
            return _BLANK, np.int32(-1), np.bool_(False), self._keep(error)
        if loaded is None:
            return _BLANK, np.int32(-1), np.bool_(False), np.int64(-1)
        return loaded[0], np.int32(loaded[1]), np.bool_(True), np.int64(-1)

    def raise_first(self, failure: np.ndarray) -> None:
        """Raises what went wrong with the first failed row of a batch, if any did."""
        failed = failure[failure >= 0]
        if len(failed):
            raise self._failures[int(failed[0])]

    def _keep(self, error: Exception) -> np.int64:
        with self._lock:
            number = len(self._failures)
            self._failures[number] = error
        return np.int64(number)

    def _load(self, index: int) -> tuple[np.ndarray, int] | None:
        """Returns (image, label), or None if the example is in quarantine."""
        if index in self.bad:
            return None
        try:
            return self._source.load(index)
        except ValueError as error:
            self._report(index, str(error))
            return None

    def _report(self, index: int, reason: str) -> None:
        """Takes an example into quarantine, or raises Fault."""
        where = self._source.describe(index)
        if not self._quarantine:
            raise Fault(
                f"{where}: {reason}. Repair or remove it, or go on without it by "
                "--config.data.on_bad_image=quarantine",
                BAD_DATA,
            )
        with self._lock:
            if index in self.bad:
                return
            self.bad[index] = reason
            count = len(self.bad)
        _log.warning("unreadable, goes into quarantine: %s: %s", where, reason)
        if count > self._max_bad * self._source.size:
            raise Fault(
                f"{count} of {self._source.size} images are unreadable, more than max_bad = "
                f"{self._max_bad:g}; the last: {where}: {reason}. Repair the data, or allow more.",
                BAD_DATA,
            )
