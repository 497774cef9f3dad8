"""Runs one command and restarts it until it is done; used by `python -m ssl_jax.supervise`.

Standard library only.
"""

import contextlib
import ctypes
import dataclasses
import os
import pathlib
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from ssl_jax.errors import INTERRUPTED, MISSING_INPUT, STOPPED_EARLY, WATCHDOG
from ssl_jax.jobs import progress, run_history

MAX_FRUITLESS_RESTARTS = 3  # restarts in a row without a new checkpoint
POLL_SECONDS = 0.1
HISTORY_INTERVAL = 30.0  # seconds between two writes of goodput.json
STACKS_TIMEOUT = 2.0  # seconds that a stuck command has to write its stack traces
PR_SET_PDEATHSIG = 1  # option of Linux's prctl(2)
REASONS = {
    0: "done",
    STOPPED_EARLY: "stopped early, its state is saved",
    WATCHDOG: "its watchdog found it stuck",
    INTERRUPTED: "interrupted by Ctrl-C",
    128 + signal.SIGABRT: "aborted, as JAX does when another process is gone",
    128 + signal.SIGKILL: "killed, possibly out of memory",
}


@dataclasses.dataclass
class Supervisor:
    """Runs one command until it ends for good.

    Args:
      command: program and arguments.
      workdir: folder with the command's checkpoints and signs of life; None if the command has
        no --workdir.
      process: number of this process in a job of several; only process 0 writes goodput.json.
      stall: seconds without a sign of life after which the command is killed; counted from the
        first sign of life. 0 never kills it.
      backoff: longest wait in seconds before the first restart. Every restart without a new
        checkpoint doubles it. The wait is shortened at random by up to half.
      max_backoff: upper limit of the wait, in seconds.
      max_fruitless_restarts: number of restarts in a row without a new checkpoint after which
        the supervisor gives up.
    """

    command: list[str]
    workdir: pathlib.Path | None
    process: int = 0
    stall: float = 1800.0
    backoff: float = 1.0
    max_backoff: float = 60.0
    max_fruitless_restarts: int = MAX_FRUITLESS_RESTARTS

    def __post_init__(self) -> None:
        self._command_process: subprocess.Popen | None = None
        self._signals: list[int] = []
        self._forwarded = 0  # signals that were sent on to the command
        self._attempts: list[run_history.Attempt] = []
        self._known_manifests = self._manifests()
        # Modification time of the last sign of life, and the monotonic time when it changed.
        self._last_sign, self._last_sign_at = 0.0, 0.0

    def run(self) -> int:
        """Runs and restarts the command; returns its last exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        signal.signal(signal.SIGUSR1, self._forward_request_for_stacks)
        if self.workdir is not None and self.process == 0:
            self._attempts = run_history.read(self.workdir)
        fruitless = -1  # the first attempt is not a restart
        while True:
            attempt = run_history.Attempt(time.time(), time.time())
            self._last_sign, self._last_sign_at = self._read_last_sign(), 0.0
            try:
                # The command gets its own session: Ctrl-C reaches it only through the supervisor,
                # and it can be killed together with all its children.
                self._command_process = subprocess.Popen(
                    self.command, start_new_session=True, preexec_fn=_end_with_parent()
                )
            except OSError as error:
                return self._report_start_failure(error)
            code, reason = self._run_attempt(attempt, self._command_process)
            if self._signals or not is_retryable(code):
                if code:
                    self._print(f"COMMAND ended with {reason}; it is not started again")
                return code
            fruitless = 0 if self._has_new_manifest() else fruitless + 1
            if fruitless >= self.max_fruitless_restarts:
                self._print(
                    f"{reason}; {fruitless} restarts brought no new checkpoint"
                    f"{'' if self.workdir else ' (COMMAND has no --workdir)'}: giving up"
                )
                return code
            delay = self._delay(max(fruitless, 0))
            self._print(f"{reason}{self._saved_step_text()}; starting again in {delay:.1f} s")
            if not self._sleep(delay):
                return code

    def _run_attempt(
        self, attempt: run_history.Attempt, process: subprocess.Popen
    ) -> tuple[int, str]:
        """Waits until the command ends; returns its exit code and the code in words."""
        self._attempts.append(attempt)
        self._forward_signals()
        written, stuck = time.monotonic(), False
        while _wait(process) is None:
            if not stuck and self.stall and self._silence() > self.stall:
                stuck = True
                self._kill_stuck(process)
            if time.monotonic() - written > HISTORY_INTERVAL:
                written = time.monotonic()
                self._update_history(attempt)
        self._command_process = None
        _send_to_session(process.pid, signal.SIGKILL)  # children left behind hold the devices
        code = WATCHDOG if stuck else _exit_code(process)
        attempt.code, attempt.reason = code, self._reason(code, stuck)
        self._update_history(attempt)
        return code, attempt.reason

    def _reason(self, code: int, stuck: bool) -> str:
        if stuck:
            return f"no sign of life for {self.stall:g} s"
        why = REASONS.get(code) or (
            f"killed by {_signal_name(code - 128)}" if code > 128 else "see its message"
        )
        return f"exit code {code}: {why}"

    def _silence(self) -> float:
        """Returns the seconds since the last sign of life; 0 before the first one.

        A command without signs of life, for example an evaluation that writes only its results, is
        never stuck. Signs of life are modification times, possibly by the clock of a file server,
        so only changes count and not the times themselves.
        """
        now, sign = time.monotonic(), self._read_last_sign()
        if sign != self._last_sign:
            self._last_sign, self._last_sign_at = sign, now
        return now - self._last_sign_at if self._last_sign_at else 0.0

    def _read_last_sign(self) -> float:
        if self.workdir is None:
            return 0.0
        try:
            return progress.last_sign_of_life(self.workdir, self.process)
        except OSError:  # the file server is away; the command may not need it now
            return self._last_sign

    def _kill_stuck(self, process: subprocess.Popen) -> None:
        self._print(
            f"no sign of life for {self.stall:g} s: requesting stack traces, then killing COMMAND"
        )
        # faulthandler answers SIGUSR1 in C, even if all Python threads are blocked.
        _send_to_session(process.pid, signal.SIGUSR1)
        deadline = time.monotonic() + STACKS_TIMEOUT
        while time.monotonic() < deadline and process.poll() is None:
            time.sleep(POLL_SECONDS)
        _send_to_session(process.pid, signal.SIGKILL)

    def _update_history(self, attempt: run_history.Attempt) -> None:
        """Updates the attempt and goodput.json."""
        attempt.ended = time.time()
        if self.workdir is None or self.process:
            return
        try:
            attempt.update(self.workdir, self.process)
            if progress.is_run(self.workdir):
                run_history.write(self.workdir, self._attempts)
        except OSError as error:
            self._print(f"cannot write {self.workdir / run_history.FILE}: {error.strerror}")

    def _has_new_manifest(self) -> bool:
        now = self._manifests()
        new = now - self._known_manifests
        self._known_manifests = self._known_manifests | now
        return bool(new)

    def _manifests(self) -> set[tuple[str, int]]:
        try:
            return progress.manifests(self.workdir)
        except OSError:
            return set()

    def _saved_step_text(self) -> str:
        try:
            return f", step {progress.saved_step(self.workdir)} is saved" if self.workdir else ""
        except OSError:
            return ""

    def _delay(self, fruitless: int) -> float:
        return min(self.max_backoff, self.backoff * 2**fruitless) * random.uniform(0.5, 1.0)

    def _sleep(self, seconds: float) -> bool:
        """Waits; returns False early if a signal arrives."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not self._signals:
            time.sleep(min(POLL_SECONDS, seconds))
        return not self._signals

    def _on_signal(self, number: int, _: Any) -> None:
        self._signals.append(number)
        self._forward_signals()

    def _forward_signals(self) -> None:
        process = self._command_process
        while process is not None and self._forwarded < len(self._signals):
            number = self._signals[self._forwarded]
            self._forwarded += 1
            if self._forwarded > 2:
                self._print("third signal: killing the command")
                _send_to_session(process.pid, signal.SIGKILL)
            else:
                _send(process.pid, number)

    def _forward_request_for_stacks(self, number: int, _: Any) -> None:
        process = self._command_process
        if process is not None:
            _send_to_session(process.pid, number)

    def _report_start_failure(self, error: OSError) -> int:
        self._print(f"cannot start {self.command[0]}: {error.strerror}")
        return MISSING_INPUT

    def _print(self, message: str) -> None:
        # Not print(): a signal handler may call this in the middle of another print.
        with contextlib.suppress(OSError):  # standard error has no reader any more
            os.write(sys.stderr.fileno(), f"supervise: {message}\n".encode())


def is_retryable(code: int) -> bool:
    """Returns whether a command that exited with `code` may succeed if it runs again.

    Codes above 128 are a shell's codes for death by a signal.
    """
    return code in (STOPPED_EARLY, WATCHDOG) or (code > 128 and code != INTERRUPTED)


def _end_with_parent() -> Callable[[], None] | None:
    """Returns a function that makes a new process get SIGTERM when this process dies.

    Without it, a supervisor that is killed by SIGKILL leaves its command running, and the command
    then keeps the devices and the workdir. Only Linux has this request; elsewhere returns None.
    """
    if not sys.platform.startswith("linux"):
        return None
    # Loaded here, because the new process may only make simple calls before it starts the command.
    prctl, supervisor = ctypes.CDLL(None, use_errno=True).prctl, os.getpid()

    def request() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != supervisor:  # it died before the request
            os.kill(os.getpid(), signal.SIGTERM)

    return request


def _wait(process: subprocess.Popen) -> int | None:
    try:
        return process.wait(POLL_SECONDS)
    except subprocess.TimeoutExpired:
        return None


def _exit_code(process: subprocess.Popen) -> int:
    code = process.returncode
    return 128 - code if code < 0 else code


def _send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _send_to_session(session: int, number: int) -> None:
    """Sends a signal to all processes of a session, including those in other process groups."""
    # macOS answers PermissionError for a dead group.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(session, number)
    processes = os.listdir("/proc") if os.path.isdir("/proc") else []  # no /proc on macOS
    for process in map(int, filter(str.isdecimal, processes)):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getsid(process) == session != os.getpgid(process):
                os.kill(process, number)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
