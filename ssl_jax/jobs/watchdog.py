"""A thread that ends a process whose training is stuck, and tells the supervisor of life.

JAX's own heartbeat goes on beating while a collective, a disk or a data thread hangs, and all other
processes wait with this one for ever (jax issue 38503).
"""

import collections
import contextlib
import faulthandler
import json
import os
import pathlib
import signal
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from ssl_jax.errors import WATCHDOG
from ssl_jax.jobs import files
from ssl_jax.jobs.goodput import HEARTBEATS
from ssl_jax.jobs.streams import tell

SHORTEST = 60.0  # seconds without a step, at least, before training counts as stuck
STEPS = 10  # so many median steps without a step
# Seconds for what has no steps: joining, restoring and compiling; a save; evaluation and report.
BUDGETS = {"start": 3600.0, "save": 1800.0, "finish": 6 * 3600.0}
LOOK = 1.0  # seconds between two looks
WRITE = 5.0  # seconds between two writings of the heartbeat


class Watchdog:
    """A context manager around training; `step` and `phase` are told what happens.

    Args:
      folder: the workdir; `heartbeat/PROCESS.json` says what was told, `PROCESS.stacks` where the
        threads were when it was stuck, or when SIGUSR1 came.
      clock: seconds, monotonic.
      end: called with the message when stuck; ends the process with WATCHDOG.
    """

    def __init__(
        self,
        folder: os.PathLike[str],
        process: int = 0,
        *,
        clock: Callable[[], float] = time.monotonic,
        end: Callable[[str], None] | None = None,
    ):
        self._folder = pathlib.Path(folder) / HEARTBEATS
        self._process, self._clock = process, clock
        self._end = _exit if end is None else end
        self._steps: collections.deque[float] = collections.deque(maxlen=101)
        self._now = ("start", clock())  # phase and since when, replaced at once: a thread reads it
        self._sums: dict[str, float] = {}
        self._step: int | None = None
        self._first = 0
        self._started = time.time()
        self._wake = threading.Event()
        self._over = False

    def begin(self, step: int) -> None:
        """Says at which step the run is resumed, 0 for a new one."""
        self._first = self._step = step

    def step(self, step: int) -> None:
        """Says that a step is done; the first one begins the training."""
        phase, since = self._now
        if phase == "train":
            self._steps.append(self._clock() - since)
        self._step = step
        self._turn_to("train")
        if phase != "train":
            self._wake.set()

    def enter(self, phase: str) -> None:
        """Begins a phase that has a budget, or "end"."""
        self._turn_to(phase)
        self._wake.set()

    def _turn_to(self, phase: str) -> None:
        (before, since), now = self._now, self._clock()
        self._sums[before] = self._sums.get(before, 0.0) + now - since
        self._now = (phase, now)

    @contextlib.contextmanager
    def saving(self) -> Iterator[None]:
        """Around a save within training; its time is no step's."""
        self._turn_to("save")
        try:
            yield
        finally:
            self._turn_to("train")

    def look(self) -> None:
        """Ends the process if it is stuck; the thread calls it once a second."""
        phase, since = self._now
        silent = self._clock() - since
        window = BUDGETS.get(phase, self._window())
        if silent <= window:
            return
        path = self._folder / f"{self._process}.stacks"
        with contextlib.suppress(OSError):  # a full disk must not keep it alive
            self._file.write(f"{time.ctime()}: {phase}, {silent:.0f} s after step {self._step}\n")
            self._file.flush()
        faulthandler.dump_traceback(self._file, all_threads=True)
        what = "no step" if phase == "train" else f"{phase} not done"
        self._end(
            f"process {self._process} is stuck: {what} for {silent:.0f} s, after step "
            f"{self._step or 0}{_where()}; stacks of all threads in {path}"
        )

    def _window(self) -> float:
        if not self._steps:  # nothing tells yet how long a step takes
            return BUDGETS["start"]
        return max(SHORTEST, STEPS * statistics.median(self._steps))

    def write(self) -> None:
        """Writes the heartbeat."""
        sums = dict(self._sums)
        beat = {
            "pid": os.getpid(),
            "started": self._started,
            "phase": self._now[0],
            "first_step": self._first,
            "step": self._step or 0,
            "phases": {name: round(seconds, 3) for name, seconds in sums.items()},
        }
        # Not durable: this thread must not wait for a slow disk, lest it miss a stuck process.
        with files.atomic_write(self._folder / f"{self._process}.json", durable=False) as file:
            file.write(f"{json.dumps(beat)}\n".encode())

    def _run(self) -> None:
        written = float("-inf")
        while not self._over:
            if self._wake.is_set() or self._clock() - written >= WRITE:
                self._wake.clear()
                written = self._clock()
                with contextlib.suppress(OSError):  # a full disk is for those who save to tell
                    self.write()
            self.look()
            self._wake.wait(LOOK)

    def __enter__(self) -> "Watchdog":
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{self._process}.stacks"
        self._file = open(path, "a", encoding="utf-8")  # an earlier life's stacks are still wanted
        with contextlib.suppress(AttributeError):  # Windows has no signals
            faulthandler.register(signal.SIGUSR1, file=self._file, all_threads=True)
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.enter("end")
        self._over = True
        self._wake.set()
        self._thread.join()
        with contextlib.suppress(OSError):
            self.write()
        with contextlib.suppress(AttributeError):
            faulthandler.unregister(signal.SIGUSR1)
        self._file.close()


def _where() -> str:
    """The innermost line of ours that the main thread is at."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    ours = os.path.dirname(os.path.dirname(__file__))  # the package's folder
    while frame is not None and not frame.f_code.co_filename.startswith(ours):
        frame = frame.f_back
    if frame is None:
        return ""
    return f", in {os.path.relpath(frame.f_code.co_filename, ours)}:{frame.f_lineno}"


def _exit(message: str) -> NoReturn:
    tell(message)
    os._exit(WATCHDOG)
