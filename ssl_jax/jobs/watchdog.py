"""A thread that ends the process when training is stuck, and writes the heartbeat.

JAX's own heartbeat continues while a collective, a disk or a data thread hangs, and all other
processes then wait forever (jax issue 38503).
"""

import collections
import contextlib
import faulthandler
import os
import pathlib
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from ssl_jax.errors import WATCHDOG
from ssl_jax.jobs import files, heartbeat
from ssl_jax.jobs.streams import print_error, write_stacks_on_signal

# Training is stuck after MEDIAN_STEPS times the median step time without a step, but not before
# MIN_STEP_TIMEOUT seconds.
MIN_STEP_TIMEOUT = 60.0
MEDIAN_STEPS = 10
# Time limits in seconds of phases without steps. start: connecting, restoring and compiling;
# save: writing a checkpoint; evaluate: evaluation between steps; finish: evaluation and report.
PHASE_TIMEOUTS = {"start": 3600.0, "save": 1800.0, "evaluate": 3600.0, "finish": 6 * 3600.0}
CHECK_INTERVAL = 1.0  # seconds between two checks
WRITE_INTERVAL = 5.0  # seconds between two writes of the heartbeat


class Watchdog:
    """A context manager around training; the training loop reports its steps and phases to it.

    Args:
      workdir: the run's folder. `heartbeat/PROCESS.json` holds the last report, and
        `heartbeat/PROCESS.stacks` the stack traces of a stuck process or of one that got SIGUSR1.
      process: number of this process.
      factor: on all time limits; 0: no limits.
      clock: monotonic time in seconds.
      end: called with a message when the process is stuck; the default prints the message and
        exits with WATCHDOG.
    """

    def __init__(
        self,
        workdir: os.PathLike[str],
        process: int = 0,
        *,
        factor: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
        end: Callable[[str], None] | None = None,
    ):
        self._workdir = pathlib.Path(workdir)
        self._folder = self._workdir / heartbeat.FOLDER
        self._process, self._factor, self._clock = process, factor, clock
        self._end = _exit if end is None else end
        self._step_times: collections.deque[float] = collections.deque(maxlen=101)
        # Phase and its start time. Always replaced as one tuple, because the thread reads it.
        self._now = ("start", clock())
        self._phase_seconds: dict[str, float] = {}
        self._step: int | None = None
        self._first_step = 0
        self._started = time.time()
        self._wake = threading.Event()
        self._closed = False

    def begin(self, step: int) -> None:
        """Reports the step at which the run resumes; 0 for a new run."""
        self._first_step = self._step = step

    def step(self, step: int) -> None:
        """Reports that a step is done; the first report starts the phase "train"."""
        phase, since = self._now
        if phase == "train":
            self._step_times.append(self._clock() - since)
        self._step = step
        self._switch_to("train")
        if phase != "train":
            self._wake.set()

    def enter(self, phase: str) -> None:
        """Starts a phase of PHASE_TIMEOUTS, or "end"."""
        self._switch_to(phase)
        self._wake.set()

    def _switch_to(self, phase: str) -> None:
        (before, since), now = self._now, self._clock()
        self._phase_seconds[before] = self._phase_seconds.get(before, 0.0) + now - since
        self._now = (phase, now)

    def saving(self) -> contextlib.AbstractContextManager[None]:
        """A context for saving during training."""
        return self.within("save")

    @contextlib.contextmanager
    def within(self, phase: str) -> Iterator[None]:
        """A context for a phase of PHASE_TIMEOUTS between two steps.

        Its time does not count as step time.
        """
        self._switch_to(phase)
        try:
            yield
        finally:
            self._switch_to("train")

    def check(self) -> None:
        """Ends the process if it is stuck; the thread calls this once a second."""
        phase, since = self._now
        silent = self._clock() - since
        timeout = self._factor * PHASE_TIMEOUTS.get(phase, self._step_timeout())
        if silent <= timeout or not self._factor:
            return
        path = self._folder / f"{self._process}.stacks"
        with contextlib.suppress(OSError):  # a full disk must not keep a stuck process alive
            self._file.write(f"{time.ctime()}: {phase}, {silent:.0f} s after step {self._step}\n")
            self._file.flush()
        faulthandler.dump_traceback(self._file, all_threads=True)
        what = "no step" if phase == "train" else f"{phase} not finished"
        self._end(
            f"process {self._process} is stuck: {what} for {silent:.0f} s, after step "
            f"{self._step or 0}{_current_line()}; stacks of all threads in {path}. If it was only "
            "slow, raise --config.train.watchdog"
        )

    def _step_timeout(self) -> float:
        if not self._step_times:  # the duration of a step is not known yet
            return PHASE_TIMEOUTS["start"]
        return max(MIN_STEP_TIMEOUT, MEDIAN_STEPS * statistics.median(self._step_times))

    def write(self) -> None:
        """Writes the heartbeat."""
        seconds_of = dict(self._phase_seconds)
        report = {
            "pid": os.getpid(),
            "started": self._started,
            "phase": self._now[0],
            "first_step": self._first_step,
            "step": self._step or 0,
            "phases": {name: round(seconds, 3) for name, seconds in seconds_of.items()},
        }
        heartbeat.write(self._workdir, self._process, report)

    def _run(self) -> None:
        written = float("-inf")
        while not self._closed:
            if self._wake.is_set() or self._clock() - written >= WRITE_INTERVAL:
                self._wake.clear()
                written = self._clock()
                with contextlib.suppress(OSError):  # checkpoints and metrics report a full disk
                    self.write()
            self.check()
            self._wake.wait(CHECK_INTERVAL)

    def __enter__(self) -> "Watchdog":
        files.inside(self._workdir, heartbeat.FOLDER).mkdir(parents=True, exist_ok=True)
        # Keeps the stacks of earlier attempts.
        self._file = files.append(self._folder / f"{self._process}.stacks")
        write_stacks_on_signal(self._file)
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.enter("end")
        self._closed = True
        self._wake.set()
        self._thread.join()
        with contextlib.suppress(OSError):
            self.write()
        write_stacks_on_signal()  # no longer to the file, which is closed now
        self._file.close()


def _current_line() -> str:
    """Returns the innermost line of this package that the main thread is executing."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    package = os.path.dirname(os.path.dirname(__file__))
    while frame is not None and not frame.f_code.co_filename.startswith(package):
        frame = frame.f_back
    if frame is None:
        return ""
    return f", in {os.path.relpath(frame.f_code.co_filename, package)}:{frame.f_lineno}"


def _exit(message: str) -> NoReturn:
    print_error(message)
    os._exit(WATCHDOG)
