"""How much memory a process takes while it works, where the devices are its own."""

import contextlib
import ctypes
import os
import pathlib
import threading

EVERY = 0.002  # seconds


class Peak:
    """A context in which the process' resident memory is watched.

    Attributes:
      grown: bytes, the most since it was entered; 0 where the system does not tell (no Linux).
    """

    def __init__(self) -> None:
        self.grown = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Peak":
        # What the compiler has freed is given back, or the step would use it and seem to take less.
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
        self._before = _resident()
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(EVERY):
            self.grown = max(self.grown, _resident() - self._before)


def _resident() -> int:
    file = pathlib.Path("/proc/self/statm")
    return int(file.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if file.exists() else 0
