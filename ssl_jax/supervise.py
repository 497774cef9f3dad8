"""Run a command again and again until it is done: after a preemption, a crash, or when stuck.

    python -m ssl_jax.supervise -- python -m ssl_jax.train --config=FILE:VARIANT --workdir=DIR

COMMAND is started again when it ends with 75 (stopped early, state saved), 81 (watchdog), 134
(aborted: another process is gone) or by a signal; every other code is passed on. SIGTERM and SIGINT
go to COMMAND, whose code then ends this one too; a third one kills it. After 3 restarts without a
new checkpoint it gives up. When nothing in COMMAND's --workdir tells of life for --stall seconds,
COMMAND is asked for its stacks, killed, and started again. `WORKDIR/goodput.json` says where the
time went. On several hosts each has its own supervisor. Standard library only.
"""

import argparse
import dataclasses
import os
import pathlib
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

from ssl_jax import goodput
from ssl_jax.errors import INTERRUPTED, MISSING_INPUT, STOPPED_EARLY, USAGE, WATCHDOG

PATIENCE = 3  # restarts in a row without a new checkpoint
POLL = 0.1  # seconds
WRITE_EVERY = 30.0  # seconds between two writings of goodput.json
STACKS = 2.0  # seconds that a stuck command has for writing its stacks
# Flags and variables that say which process of a job this is; the first that is set counts.
PROCESS_VARIABLES = (
    *("SSL_JAX_PROCESS", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "SKYPILOT_NODE_RANK"),
    *("TPU_WORKER_ID", "CLOUD_TPU_TASK_ID", "JOB_COMPLETION_INDEX"),
)
REASONS = {
    STOPPED_EARLY: "stopped early, its state is saved",
    WATCHDOG: "its watchdog found it stuck",
    128 + signal.SIGABRT: "aborted, as JAX does when another process is gone",
    128 + signal.SIGKILL: "killed, perhaps for want of memory",
}


def main(arguments: list[str]) -> int:
    """Parses the flags, runs the command, returns the exit code."""
    at = arguments.index("--") if "--" in arguments else len(arguments)
    own, command = arguments[:at], arguments[at + 1 :]
    parser = argparse.ArgumentParser(
        prog="supervise",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s [--stall=SECONDS] [--max_backoff=SECONDS] -- COMMAND...",
        exit_on_error=False,
    )
    parser.add_argument("--stall", type=float, default=1800.0, help="0: never (default 1800)")
    parser.add_argument("--max_backoff", type=float, default=60.0, help="default 60")
    try:
        flags, unknown = parser.parse_known_args(own)
    except argparse.ArgumentError as error:
        return _refuse(str(error))
    if unknown:
        return _refuse(f"unexpected argument {unknown[0]!r}; COMMAND stands behind --")
    if not command:
        return _refuse("which command? It stands behind --; see --help")
    if flags.stall < 0 or flags.max_backoff < 0:
        return _refuse("--stall and --max_backoff are seconds, 0 or more")
    supervisor = Supervisor(
        command,
        workdir=_workdir(command),
        process=process_number(command, os.environ),
        stall=flags.stall,
        max_backoff=flags.max_backoff,
    )
    return supervisor.run()


def _refuse(message: str) -> int:
    print(f"supervise: {message}", file=sys.stderr, flush=True)
    return USAGE


def option(command: list[str], name: str) -> str | None:
    """The value of --NAME=VALUE or --NAME VALUE in a command, the last one; None without it."""
    found = None
    for argument, after in zip(command, [*command[1:], None], strict=True):
        if argument.startswith(f"--{name}="):
            found = argument.partition("=")[2]
        elif argument == f"--{name}":
            found = after
    return found


def _workdir(command: list[str]) -> pathlib.Path | None:
    value = option(command, "workdir")
    if value is None or "://" in value:
        return None
    return pathlib.Path(value).expanduser().absolute()


def process_number(command: list[str], environment: Mapping[str, str]) -> int:
    """Which process of a job of several this host's is, by flag or environment; else 0."""
    found = [option(command, "process"), *(environment.get(n) for n in PROCESS_VARIABLES)]
    return next((int(value) for value in found if value and value.isdecimal()), 0)


@dataclasses.dataclass
class Supervisor:
    """Runs one command until it ends for good.

    Args:
      workdir: where its checkpoints and signs of life are; None if the command names none.
      process: its number in a job of several; only 0 writes goodput.json.
      stall: seconds without a sign of life; 0 waits for ever.
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

    def run(self) -> int:
        """Returns the exit code: COMMAND's last one."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        if self.workdir is not None and self.process == 0:
            self._lives = goodput.read(self.workdir)
        barren = -1  # the first life is no restart
        while True:
            try:
                code, reason = self._live()
            except OSError as error:
                return self._cannot_start(error)
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

    def _live(self) -> tuple[int, str]:
        """One life of the command: its exit code, and that in words."""
        life = goodput.Life(time.time(), time.time())
        self._lives.append(life)
        self._passed = len(self._signals)
        # Its own group: Ctrl-C reaches it through us alone, and it dies with all its children.
        self._child = child = subprocess.Popen(self.command, start_new_session=True)
        self._pass_on()
        written, stuck = time.monotonic(), False
        while _wait(child) is None:
            if not stuck and self.stall and self._silence(life) > self.stall:
                stuck = True
                self._kill_stuck(child)
            if time.monotonic() - written > WRITE_EVERY:
                written = time.monotonic()
                self._account(life, child.pid)
        self._child = None
        _kill_group(child.pid)  # what it left behind would hold the devices
        code = WATCHDOG if stuck else _exit_code(child)
        life.code, life.reason = code, self._reason(code, stuck)
        self._account(life, child.pid)
        return code, life.reason

    def _reason(self, code: int, stuck: bool) -> str:
        if stuck:
            return f"no sign of life for {self.stall:g} s"
        why = REASONS.get(code) or (
            f"died by {_signal_name(code - 128)}" if code > 128 else "see its message"
        )
        return f"exit code {code}: {why}"

    def _silence(self, life: goodput.Life) -> float:
        """Seconds since the last sign of life; a command without a workdir always shows one."""
        if self.workdir is None:
            return 0.0
        folder = self.workdir
        signs = [folder / goodput.HEARTBEATS / f"{self.process}.json", folder / "metrics.jsonl"]
        signs += [folder / "checkpoints", folder / "eval"]
        touched = [path.stat().st_mtime for path in signs if path.exists()]
        return time.time() - max([life.started, *touched])

    def _kill_stuck(self, child: subprocess.Popen) -> None:
        self._say(f"no sign of life for {self.stall:g} s: asking for stacks, then killing it")
        # A worker answers by faulthandler, in C, whatever its threads wait for.
        _send(child.pid, signal.SIGUSR1)
        deadline = time.monotonic() + STACKS
        while time.monotonic() < deadline and child.poll() is None:
            time.sleep(POLL)
        _kill_group(child.pid)

    def _account(self, life: goodput.Life, pid: int) -> None:
        """Brings the life up to date, and goodput.json with it."""
        life.ended = time.time()
        if self.workdir is None or self.process:
            return
        beat = goodput.heartbeat(self.workdir, self.process)
        if beat.get("started", 0.0) >= life.started:  # not one of an earlier life
            life.first_step, life.last_step = beat["first_step"], beat["step"]
            life.phases = beat["phases"]
        life.saved_step = goodput.saved_step(self.workdir)
        if self.workdir.is_dir():
            try:
                goodput.write(self.workdir, self._lives)
            except OSError as error:
                self._say(f"cannot write {self.workdir / goodput.FILE}: {error.strerror}")

    def _manifests(self) -> set[tuple[str, int]]:
        if self.workdir is None:
            return set()
        paths = (self.workdir / "checkpoints").glob("*/MANIFEST.json")
        found = set()
        for path in paths:
            try:
                found.add((path.parent.name, path.stat().st_mtime_ns))
            except FileNotFoundError:  # deleted for a newer one
                continue
        return found

    def _has_new_manifest(self) -> bool:
        now = self._manifests()
        new, self._seen = now - self._seen, self._seen | now
        return bool(new)

    def _where(self) -> str:
        return f", step {goodput.saved_step(self.workdir)} is saved" if self.workdir else ""

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
                _kill_group(child.pid)
            else:
                _send(child.pid, number)

    def _cannot_start(self, error: OSError) -> int:
        self._say(f"cannot start {self.command[0]}: {error.strerror}")
        return MISSING_INPUT

    def _say(self, message: str) -> None:
        # Not print: a signal's handler may come here from within another print.
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
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):  # macOS says the latter of a dead group
        return


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
