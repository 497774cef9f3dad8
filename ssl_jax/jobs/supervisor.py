"""What `ssl_jax.supervise` does: one command, started again until it is done."""

import contextlib
import dataclasses
import os
import pathlib
import random
import signal
import subprocess
import sys
import time
from typing import Any

from ssl_jax.errors import INTERRUPTED, MISSING_INPUT, STOPPED_EARLY, WATCHDOG
from ssl_jax.jobs import goodput

PATIENCE = 3  # restarts in a row without a new checkpoint
POLL = 0.1  # seconds
WRITE_EVERY = 30.0  # seconds between two writings of goodput.json
STACKS = 2.0  # seconds that a stuck command has for writing its stacks
REASONS = {
    0: "done",
    STOPPED_EARLY: "stopped early, its state is saved",
    WATCHDOG: "its watchdog found it stuck",
    128 + signal.SIGABRT: "aborted, as JAX does when another process is gone",
    128 + signal.SIGKILL: "killed, perhaps for want of memory",
}


@dataclasses.dataclass
class Supervisor:
    """Runs one command until it ends for good.

    Args:
      workdir: where its checkpoints and signs of life are; None if the command names none.
      process: its number in a job of several; only 0 writes goodput.json.
      stall: seconds without a sign of life, after the first; 0 waits for ever.
      backoff, max_backoff: seconds before the first restart, doubled by each without a new
        checkpoint, and the most; a random share of up to half is taken off.
    """

    command: list[str]
    workdir: pathlib.Path | None
    process: int = 0
    stall: float = 1800.0
    backoff: float = 1.0
    max_backoff: float = 60.0
    patience: int = PATIENCE

    def __post_init__(self) -> None:
        self._child: subprocess.Popen | None = None
        self._signals: list[int] = []
        self._passed = 0
        self._lives: list[goodput.Life] = []
        self._seen = self._manifests()
        self._sign, self._showed = 0.0, 0.0  # the last sign of life, and when it was new

    def run(self) -> int:
        """Returns the exit code: COMMAND's last one."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        if self.workdir is not None and self.process == 0:
            self._lives = goodput.read(self.workdir)
        barren = -1  # the first life is no restart
        while True:
            life = goodput.Life(time.time(), time.time())
            self._sign, self._showed = self._last_sign(), 0.0
            try:
                # Its own session: Ctrl-C reaches it through us alone, and it dies with all its
                # children.
                self._child = subprocess.Popen(self.command, start_new_session=True)
            except OSError as error:
                return self._cannot_start(error)
            code, reason = self._live(life, self._child)
            if self._signals or not is_retryable(code):
                return code
            barren = 0 if self._has_new_manifest() else barren + 1
            if barren >= self.patience:
                self._say(
                    f"{reason}; {barren} restarts brought no new checkpoint"
                    f"{'' if self.workdir else ' (COMMAND names no --workdir)'}: giving up"
                )
                return code
            delay = self._delay(max(barren, 0))
            self._say(f"{reason}{self._where()}; starting again in {delay:.1f} s")
            if not self._sleep(delay):
                return code

    def _live(self, life: goodput.Life, child: subprocess.Popen) -> tuple[int, str]:
        """One life of the command: its exit code, and that in words."""
        self._lives.append(life)
        self._pass_on()
        written, stuck = time.monotonic(), False
        while _wait(child) is None:
            if not stuck and self.stall and self._silence() > self.stall:
                stuck = True
                self._kill_stuck(child)
            if time.monotonic() - written > WRITE_EVERY:
                written = time.monotonic()
                self._account(life)
        self._child = None
        _send_all(child.pid, signal.SIGKILL)  # what it left behind would hold the devices
        code = WATCHDOG if stuck else _exit_code(child)
        life.code, life.reason = code, self._reason(code, stuck)
        self._account(life)
        return code, life.reason

    def _reason(self, code: int, stuck: bool) -> str:
        if stuck:
            return f"no sign of life for {self.stall:g} s"
        why = REASONS.get(code) or (
            f"died by {_signal_name(code - 128)}" if code > 128 else "see its message"
        )
        return f"exit code {code}: {why}"

    def _silence(self) -> float:
        """Seconds since the last sign of this life; 0 of a command that has shown none so far.

        An evaluation shows none until its numbers are there, whatever it takes. Signs are files'
        times, which a file server's clock may have given: only that they change is looked at.
        """
        now, sign = time.monotonic(), self._last_sign()
        if sign != self._sign:
            self._sign, self._showed = sign, now
        return now - self._showed if self._showed else 0.0

    def _last_sign(self) -> float:
        if self.workdir is None:
            return 0.0
        try:
            return goodput.last_sign(self.workdir, self.process)
        except OSError:  # a file server that is away; the command itself may not need it now
            return self._sign

    def _kill_stuck(self, child: subprocess.Popen) -> None:
        self._say(f"no sign of life for {self.stall:g} s: asking for stacks, then killing it")
        # Workers answer by faulthandler, in C, whatever their threads wait for.
        _send_all(child.pid, signal.SIGUSR1)
        deadline = time.monotonic() + STACKS
        while time.monotonic() < deadline and child.poll() is None:
            time.sleep(POLL)
        _send_all(child.pid, signal.SIGKILL)

    def _account(self, life: goodput.Life) -> None:
        """Brings the life up to date, and goodput.json with it."""
        life.ended = time.time()
        if self.workdir is None or self.process:
            return
        try:
            life.learn(self.workdir, self.process)
            if goodput.is_run(self.workdir):
                goodput.write(self.workdir, self._lives)
        except OSError as error:
            self._say(f"cannot write {self.workdir / goodput.FILE}: {error.strerror}")

    def _has_new_manifest(self) -> bool:
        now = self._manifests()
        new, self._seen = now - self._seen, self._seen | now
        return bool(new)

    def _manifests(self) -> set[tuple[str, int]]:
        try:
            return goodput.manifests(self.workdir)
        except OSError:
            return set()

    def _where(self) -> str:
        try:
            return f", step {goodput.saved_step(self.workdir)} is saved" if self.workdir else ""
        except OSError:
            return ""

    def _delay(self, barren: int) -> float:
        return min(self.max_backoff, self.backoff * 2**barren) * random.uniform(0.5, 1.0)

    def _sleep(self, seconds: float) -> bool:
        """Waits; False as soon as there is a signal."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not self._signals:
            time.sleep(min(POLL, seconds))
        return not self._signals

    def _on_signal(self, number: int, _: Any) -> None:
        self._signals.append(number)
        self._pass_on()

    def _pass_on(self) -> None:
        child = self._child
        while child is not None and self._passed < len(self._signals):
            number = self._signals[self._passed]
            self._passed += 1
            if self._passed > 2:
                self._say("third signal: killing the command")
                _send_all(child.pid, signal.SIGKILL)
            else:
                _send(child.pid, number)

    def _cannot_start(self, error: OSError) -> int:
        self._say(f"cannot start {self.command[0]}: {error.strerror}")
        return MISSING_INPUT

    def _say(self, message: str) -> None:
        # Not print: a signal's handler may come here from within another print.
        with contextlib.suppress(OSError):  # nobody reads it any more
            os.write(sys.stderr.fileno(), f"supervise: {message}\n".encode())


def is_retryable(code: int) -> bool:
    """Whether the same command, run again, goes on: also codes of a shell for death by signal."""
    return code in (STOPPED_EARLY, WATCHDOG) or (code > 128 and code != INTERRUPTED)


def _wait(child: subprocess.Popen) -> int | None:
    try:
        return child.wait(POLL)
    except subprocess.TimeoutExpired:
        return None


def _exit_code(child: subprocess.Popen) -> int:
    code = child.returncode
    return 128 - code if code < 0 else code


def _send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _send_all(session: int, number: int) -> None:
    """Sends a signal to all processes of a session, also those in groups of their own."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS says so of a dead group
        os.killpg(session, number)
    processes = os.listdir("/proc") if os.path.isdir("/proc") else []  # not on macOS
    for process in map(int, filter(str.isdecimal, processes)):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getsid(process) == session != os.getpgid(process):
                os.kill(process, number)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
