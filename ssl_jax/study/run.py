"""Runs cells here, one after another; each is a training of its own process."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from ssl_jax.errors import INTERRUPTED, NUMERIC, STOPPED_EARLY, Fault
from ssl_jax.rundir import workdir
from ssl_jax.study import folder, grid
from ssl_jax.study.cells import Cell
from ssl_jax.study.folder import Study

TRAIN = (sys.executable, "-m", "ssl_jax.train")
LAST_LINES = 5
# A scheduler or launcher has placed this process: it gave the devices, too.
PLACED = ("SLURM_JOB_ID", "JOB_COMPLETION_INDEX", "SKYPILOT_NODE_RANK", "SSL_JAX_PROCESSES")


def command(study: Study, cell: Cell) -> list[str]:
    """The training of a cell."""
    fields = [f"--config.{field}={grid.spelled(value)}" for field, value in cell.fields.items()]
    return [*TRAIN, *study.arguments, *fields, f"--workdir={study.run(cell)}"]


def environment(cell: Cell, cache: str = "") -> dict[str, str]:
    """That of a cell's training: its devices, where nothing else gives them.

    Args:
      cache: folder of compiled programs, which cells that differ in the seed share.
    """
    found = dict(os.environ)
    if cell.devices and not any(name in found for name in PLACED):
        found["JAX_NUM_CPU_DEVICES"] = str(cell.devices)
        gpus = found.get("CUDA_VISIBLE_DEVICES", "").split(",")
        gpus = gpus if gpus != [""] else [str(i) for i in range(cell.devices)]
        found["CUDA_VISIBLE_DEVICES"] = ",".join(gpus[: cell.devices])
    if cache:
        found.setdefault("JAX_COMPILATION_CACHE_DIR", cache)
    return found


class Runner:
    """Runs cells, and passes a signal on to the one that runs."""

    def __init__(self, study: Study, cache: str = "") -> None:
        self.study, self._cache = study, cache
        self._child: subprocess.Popen[bytes] | None = None
        self._signal: signal.Signals | None = None

    def all(self, chosen: Sequence[Cell], say: Callable[[str], None] = print) -> list[Cell]:
        """Runs what is neither done nor diverged; returns the cells that failed.

        Raises:
          Fault: STOPPED_EARLY or INTERRUPTED after a signal; the same command goes on.
        """
        study = self.study
        waiting = [c for c in chosen if folder.status(study, c) not in ("done", "diverged")]
        waiting = [c for c in waiting if not c.same_as]
        seconds: list[float] = []
        for i, cell in enumerate(waiting, 1):
            code = self.one(cell)
            self._stop_if_asked(f"{len(waiting) - i + 1} of {len(chosen)} cells are not done")
            took = study.record(cell)["seconds"]
            seconds.append(took)
            left = sum(seconds) / len(seconds) * (len(waiting) - i) / 60
            end = f"{took:.0f} s{_elsewhere(study, cell)}; {left:.0f} min left"
            say(f"{i}/{len(waiting)} {cell.name}: {_result(code)}, {end}")
        return [cell for cell in waiting if folder.status(study, cell) not in ("done", "diverged")]

    def one(self, cell: Cell, *, write: bool = True, show: bool = False) -> int:
        """Trains a cell; returns its exit code, 128 + n after death by signal n.

        Args:
          write: keep its log and how it ended; of several processes of one training, the first.
          show: print what it prints, too.
        """
        record = self.study.record(cell) if write else {}
        self.study.log(cell).parent.mkdir(parents=True, exist_ok=True)
        start = time.monotonic()
        if not write:
            return self._wait(self._start(cell, None))
        with (
            self.study.log(cell).open("ab") as log,
            self._start(cell, subprocess.PIPE if show else log) as child,
        ):
            for line in child.stdout or ():
                log.write(line)
                sys.stdout.buffer.write(line)
                sys.stdout.flush()
            code = self._wait(child)
        self.study.write_record(cell, _record(self.study, cell, record, code, start))
        return code

    def _start(self, cell: Cell, output: Any) -> "subprocess.Popen[bytes]":
        errors = None if output is None else subprocess.STDOUT
        variables = environment(cell, self._cache)
        words = command(self.study, cell)
        self._child = subprocess.Popen(words, env=variables, stdout=output, stderr=errors)
        if self._signal:  # which came before there was a child to pass it on to
            self._child.send_signal(self._signal)
        return self._child

    def _wait(self, child: "subprocess.Popen[bytes]") -> int:
        code = child.wait()
        self._child = None
        return code if code >= 0 else 128 - code

    def _stop_if_asked(self, what: str) -> None:
        if self._signal is None:
            return
        code = {signal.SIGTERM: STOPPED_EARLY, signal.SIGINT: INTERRUPTED}[self._signal]
        raise Fault(f"{self._signal.name}: {what}; run the same command again", code)

    def _pass_on(self, number: int, _: Any) -> None:
        self._signal = signal.Signals(number)
        if self._child and self._child.poll() is None:
            self._child.send_signal(number)

    def __enter__(self) -> "Runner":
        numbers = (signal.SIGTERM, signal.SIGINT)
        self._old = {number: signal.signal(number, self._pass_on) for number in numbers}
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)


def _record(
    study: Study, cell: Cell, before: dict[str, Any], code: int, start: float
) -> dict[str, Any]:
    lines = study.log(cell).read_text(errors="replace").splitlines()
    return {
        "exit": code,
        "seconds": round(before.get("seconds", 0) + time.monotonic() - start, 1),
        "attempts": before.get("attempts", 0) + 1,
        "lines": [line for line in lines if line.strip()][-LAST_LINES:] if code else [],
    }


def _result(code: int) -> str:
    return {0: "done", NUMERIC: "diverged"}.get(code, f"exit {code}")


def _elsewhere(study: Study, cell: Cell) -> str:
    """A warning where a cell ran on other devices than asked for, "" otherwise."""
    data = workdir.Workdir(study.run(cell)).read_json("metadata.json") or {}
    ran = data.get("devices", cell.devices)
    return f", on {ran} devices instead of {cell.devices}" if cell.devices not in (0, ran) else ""
