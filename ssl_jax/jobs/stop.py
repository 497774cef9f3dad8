"""Coordinated stop: on SIGTERM or SIGINT, all processes of a job save the same step and exit.

The effect of a signal depends on the phase. During training, the processes agree on a step; each
stops after that step and saves it. Before and after training there is nothing new to save, so all
processes exit at once. This also works while the main thread compiles and would not run Python's
signal handlers for minutes.

A background thread, which `signal.set_wakeup_fd` wakes, handles the signals. It agrees with the
other processes through `coordination` and never through a collective: only main threads may call
collectives, and all in the same order, or they hang.
"""

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, NoReturn

from ssl_jax.errors import INTERRUPTED, STOPPED_EARLY, Fault, exit_code
from ssl_jax.jobs.streams import print_error

START, TRAIN, FINISH = "start", "train", "finish"
NOW = 0  # instead of a step to stop at: exit at once
HANDLER_TIMEOUT = 5.0  # seconds for the main thread to run the handler or to finish compiling
UNWIND_TIMEOUT = 20.0  # seconds for the main thread to exit after that; a preempted host has 30
POLL_INTERVAL = 0.5  # seconds between two looks at the messages of the other processes


class Stop:
    """A context manager in which signals stop the command as described in this module.

    Args:
      ignore_signals_after: after the context, ignores the signals instead of restoring the old
        handlers. For a context that only the end of the command follows.
    """

    CODES: ClassVar = {signal.SIGTERM: STOPPED_EARLY, signal.SIGINT: INTERRUPTED}

    def __init__(self, *, ignore_signals_after: bool = False) -> None:
        self._ignore_signals_after = ignore_signals_after
        self.signal: signal.Signals | None = None
        self._origin = ""  # for example " on process 1"
        self._handled = 0  # signals that the handler has seen
        self._deferring = False
        self._raised: Fault | None = None  # raised by the handler
        self._checkpoints: Any = None
        self._cleanup: Callable[[], object] | None = None
        self._job: Any = None
        self._phase, self._step = START, 0
        self._condition = threading.Condition()
        # While _blocked is set, the main thread waits at its next call: the background thread is
        # deciding, or ending the process.
        self._blocked = False
        self._closed = False
        self._detached = False  # this process no longer follows the others
        self._stop_step: int | None = None
        self._first_signal_time = 0.0  # monotonic; 0 before the first signal

    def join_job(self) -> None:
        """Makes a signal to any process stop all processes of the job, if there are several."""
        import jax

        if self._job is None and jax.distributed.is_initialized():
            from ssl_jax.jobs.coordination import Job

            self._job = Job()

    def set_checkpoints(self, checkpoints: Any) -> None:
        """Sets the checkpoint writer whose `wait()` is called before a signal ends the command."""
        self._checkpoints = checkpoints

    def set_cleanup(self, cleanup: Callable[[], object]) -> None:
        """Sets a function for a signal that ends the process while the main thread is busy.

        The background thread calls it, because no `finally` block of the main thread runs then.
        """
        self._cleanup = cleanup

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """A context in which a signal is only recorded; `should_stop` tells the training loop.

        If a signal has not stopped the loop, the command ends after the context.
        """
        self._deferring = True
        try:
            yield
        except Exception as error:
            self._exit_if_caused_elsewhere(error)
            raise
        finally:
            self._deferring = False
        with self._condition:
            self._condition.wait_for(lambda: not self._blocked)
            self._phase = FINISH
            stopping = self.signal if self._job is None else self._stop_step is not None
        if stopping:
            raise self.fault("all steps are saved")

    def should_stop(self, step: int) -> bool:
        """Returns whether to save this step and stop.

        Every process calls this once per step, at the same place in its loop.
        """
        with self._condition:
            # Wait while the processes decide: otherwise this one could pass the step they choose.
            self._condition.wait_for(lambda: not self._blocked)
            self._phase, self._step = TRAIN, step
            if self._job is None:
                return self.signal is not None
            return self._stop_step is not None and step >= self._stop_step

    def fault(self, saved: str) -> Fault:
        """Returns the Fault that ends the command, once all processes have saved.

        Args:
          saved: what was saved, for the message.
        """
        assert self.signal is not None
        if self._job is not None:
            self._checkpoints.wait()
            self._job.barrier("saved")
            self._detached = True
        return Fault(self._message(saved), self.CODES[self.signal])

    def _message(self, saved: str) -> str:
        assert self.signal is not None
        return f"{self.signal.name}{self._origin}: {saved}; run the same command again"

    def __enter__(self) -> "Stop":
        self._pipe, self._wakeup = os.pipe()
        os.set_blocking(self._wakeup, False)
        self._old_wakeup = signal.set_wakeup_fd(self._wakeup, warn_on_full_buffer=False)
        self._old_handlers = {number: signal.signal(number, self._handle) for number in self.CODES}
        self._thread = threading.Thread(target=self._watch, name="stop", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: Any, error: BaseException | None, _: Any) -> None:
        if self._job is not None:
            self._end_together(error)
        elif self.signal and "jax" in sys.modules:
            # The signal may have arrived after all processes connected. The thread then ends this
            # process, and with it all others.
            self._blocked = True
            self.join_job()
            self._blocked = self._job is not None
        with self._condition:
            self._condition.wait_for(lambda: not self._blocked)  # forever, if the thread exits
            self._closed = True
        for number, handler in self._old_handlers.items():
            signal.signal(number, signal.SIG_IGN if self._ignore_signals_after else handler)
        signal.set_wakeup_fd(self._old_wakeup)
        os.write(self._wakeup, b"\0")
        self._thread.join()
        os.close(self._pipe)
        os.close(self._wakeup)
        if self._raised and error is not None and error is not self._raised:
            # Other code, for example an import, turned the handler's Fault into its own error.
            raise self._raised from error

    def _handle(self, number: int, _: Any) -> None:
        """Handles a signal in the main thread."""
        self._handled += 1
        if self._handled > 2:
            _exit("third signal: aborting", 128 + number)
        if self._handled > 1 and (self._deferring or self._job is not None):
            print_error("saving; this signal is ignored, a third one aborts")
            return
        if self._job is None:
            self.signal = signal.Signals(number)
            if not self._deferring:
                self._raised = self.fault("nothing new to save")
                raise self._raised

    # Methods of the background thread.

    def _watch(self) -> None:
        while not self._closed:
            ready, _, _ = select.select([self._pipe], [], [], POLL_INTERVAL)
            numbers = [n for n in os.read(self._pipe, 64) if n in self.CODES] if ready else []
            if numbers and not self._first_signal_time:
                self._first_signal_time = time.monotonic()
                self._first_signal = signal.Signals(numbers[0])
            if self._closed:
                return
            if self._job is None:
                waited = time.monotonic() - self._first_signal_time
                if self._first_signal_time and waited > self._timeout():
                    self.signal = self._first_signal
                    self._exit_all()
            elif not self._detached:
                self._follow_job()

    def _timeout(self) -> float:
        """Returns the seconds after the signal until the thread ends a single process."""
        if self._deferring and self._phase != START:
            return float("inf")  # a step may take long; the loop then saves it
        # Before training, an import may have swallowed the handler's Fault. Later, a Fault that
        # was raised needs time to unwind.
        return UNWIND_TIMEOUT if self._raised and self._phase != START else HANDLER_TIMEOUT

    def _follow_job(self) -> None:
        from ssl_jax.jobs.coordination import LostProcesses

        try:
            self._job.beat()
            if self._first_signal_time:
                self._job.post_notice("stop", signal=self._first_signal.name)
            for process, notice in self._job.notices("failed").items():
                if process != self._job.process:
                    self._follow_failure(process, notice["code"])
            if self._stop_step is None and (notices := self._job.notices("stop")):
                first = min(notices)
                self.signal = signal.Signals[notices[first]["signal"]]
                self._origin = f" on process {first}"
                self._agree_on_step()
        except LostProcesses as lost:
            if not self._detached:
                self._exit_without(lost.processes)
            self._unblock()  # the loss came too late to stop anything

    def _agree_on_step(self) -> None:
        """Agrees with all processes on the step to stop at; exits if there is none to wait for."""
        with self._condition:
            self._blocked = True
            own = self._phase, self._step
        self._stop_step = self._job.agree("stop", own, common_step)
        if self._stop_step == NOW or own[0] == FINISH:
            self._exit_all()
        self._unblock()

    def _unblock(self) -> None:
        with self._condition:
            self._blocked = False
            self._condition.notify_all()

    def _exit_all(self) -> NoReturn:
        """Ends the command from this thread, whatever the main thread is doing."""
        assert self.signal is not None
        code, message = self.CODES[self.signal], self._message("nothing new to save")
        try:
            # Only after training: if a process still compiles, the other processes' saves would
            # wait for it.
            if self._checkpoints is not None and self._phase == FINISH:
                self._checkpoints.wait()
        except Fault as fault:
            if self._job is not None:
                self._announce_failure(fault.code)
            _exit(f"{self.signal.name}: {fault}", fault.code)
        if self._job is not None:
            self._job.barrier("saved")
            self._job.disconnect()
        if self._cleanup is not None:
            with contextlib.suppress(OSError):
                self._cleanup()
        _exit(message, code)

    def _follow_failure(self, process: int, code: int) -> None:
        """Ends this process because another one failed, unless this one fails by itself.

        All processes meet the same bad step, and their main threads report it in more detail.
        """
        self._wait_for_save()
        deadline = time.monotonic() + HANDLER_TIMEOUT
        while not self._detached and time.monotonic() < deadline:
            time.sleep(POLL_INTERVAL)
        if self._detached:
            return
        with self._condition:
            self._blocked = True
        self._exit_after_failure(process, code)

    def _exit_after_failure(self, process: int, code: int) -> NoReturn:
        from ssl_jax.jobs.coordination import LostProcesses

        with contextlib.suppress(LostProcesses):
            self._job.announce_exit()
        _exit(f"process {process} ended with exit code {code}; see its message for the cause", code)

    def _exit_without(self, processes: list[int]) -> NoReturn:
        from ssl_jax.jobs.coordination import LostProcesses, format_processes

        with self._condition:
            self._blocked = True  # the main thread must not continue
        self._wait_for_save()
        with contextlib.suppress(LostProcesses):
            self._job.announce_exit(processes)
        lost = f"{format_processes(processes)} of {self._job.count} gone: no sign of life"
        _exit(f"{lost}; {self._saved_text()}; run the same command again", STOPPED_EARLY)

    def _wait_for_save(self) -> None:
        """Waits up to UNWIND_TIMEOUT for a running save.

        Process 0 writes the manifest after all other processes have written their part.
        """
        if self._checkpoints is None:
            return

        def wait() -> None:
            with contextlib.suppress(Exception):  # the caller reads from disk what is saved
                self._checkpoints.wait()

        # In a thread, because a save may never end without the other processes.
        waiting = threading.Thread(target=wait, name="save", daemon=True)
        waiting.start()
        waiting.join(UNWIND_TIMEOUT)

    def _saved_text(self) -> str:
        step = self._checkpoints.latest_step() if self._checkpoints is not None else None
        return f"step {step} is saved" if step else "nothing was saved yet"

    # Ends of the main thread in a job of several processes.

    def _end_together(self, error: BaseException | None) -> None:
        from ssl_jax.jobs.coordination import LostProcesses

        if error is None:
            try:
                self._job.barrier("end")  # the thread still answers signals
            except LostProcesses as lost:
                # Also raised if this process's own thread exits and so closes the connection. That
                # thread then ends the process, and this wait lasts forever.
                with self._condition:
                    self._condition.wait_for(lambda: not self._blocked)
                self._exit_without(lost.processes)
        elif not self._detached:
            self._exit_if_caused_elsewhere(error)
            self._announce_failure(exit_code(error))
            return
        self._detached = True
        self._job.disconnect()

    def _exit_if_caused_elsewhere(self, error: BaseException) -> None:
        """Ends the command if the error was caused by another process that is gone or failed."""
        if self._job is None or isinstance(error, Fault):
            return
        with self._condition:
            self._condition.wait_for(lambda: not self._blocked)  # forever, if the thread exits
        if lost := self._job.silent_processes():
            self._exit_without(lost)
        for process, notice in self._job.notices("failed").items():
            if process != self._job.process:
                self._exit_after_failure(process, notice["code"])

    def _announce_failure(self, code: int) -> None:
        """Tells the other processes to end as well; they would wait for this one."""
        self._detached = True  # from here on, this process follows none of the others
        self._job.post_notice("failed", code=code)
        self._job.announce_exit()


def common_step(reports: list[tuple[str, int]]) -> int:
    """Returns the step after which all processes stop, or NOW.

    The step is the first one that no process has reached. The result is NOW if a process still
    compiles: the others are then at most in their first step, which is not worth the wait. It is
    also NOW if all processes have finished training. A step after the last one means the end of
    training.

    Args:
      reports: phase and last reached step of every process.
    """
    phases = {phase for phase, _ in reports}
    if START in phases or phases == {FINISH}:
        return NOW
    return max(step for _, step in reports) + 1


def _exit(message: str, code: int) -> NoReturn:
    print_error(message)
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    os._exit(code)
