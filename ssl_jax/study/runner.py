"""Runs cells on this machine one after another, each training in its own process."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from ssl_jax.errors import INTERRUPTED, NUMERIC, STOPPED_EARLY, Fault
from ssl_jax.jobs import files, json_files
from ssl_jax.jobs.python_command import module_command
from ssl_jax.study import grid, study_folder
from ssl_jax.study.cells import Cell
from ssl_jax.study.study_folder import Study

TRAIN = module_command("ssl_jax.train")
LAST_LINES = 5
# Set by a scheduler or launcher, which also chooses the devices.
LAUNCHER_VARIABLES = (
    *("SLURM_JOB_ID", "JOB_COMPLETION_INDEX", "SKYPILOT_NODE_RANK", "SSL_JAX_PROCESSES"),
)


def training_command(study: Study, cell: Cell) -> list[str]:
    """Returns the command that trains a cell."""
    fields = [f"--config.{name}={grid.format_value(value)}" for name, value in cell.fields.items()]
    return [*TRAIN, *study.arguments, *fields, f"--workdir={study.run_path(cell)}"]


def environment(cell: Cell, cache: str = "") -> dict[str, str]:
    """Returns the environment of a cell's training.

    It sets the cell's devices, unless a launcher has chosen the devices.

    Args:
      cell: cell to train.
      cache: folder of compiled programs, which cells that differ only in the seed share.
    """
    variables = dict(os.environ)
    if cell.devices and not any(name in variables for name in LAUNCHER_VARIABLES):
        variables["JAX_NUM_CPU_DEVICES"] = str(cell.devices)
        gpus = variables.get("CUDA_VISIBLE_DEVICES", "").split(",")
        gpus = gpus if gpus != [""] else [str(i) for i in range(cell.devices)]
        variables["CUDA_VISIBLE_DEVICES"] = ",".join(gpus[: cell.devices])
    if cache:
        variables.setdefault("JAX_COMPILATION_CACHE_DIR", cache)
    return variables


class Runner:
    """Runs cells, and passes SIGTERM and SIGINT on to the training that runs.

    Use it as a context manager, which installs and restores the signal handlers.

    Args:
      study: study of the cells.
      cache: folder of compiled programs; "" for none.
    """

    def __init__(self, study: Study, cache: str = "") -> None:
        self.study, self._cache = study, cache
        self._training: subprocess.Popen[bytes] | None = None
        self._signal: signal.Signals | None = None

    def run_all(self, cells: Sequence[Cell], show: Callable[[str], None] = print) -> list[Cell]:
        """Runs the cells that are neither done nor diverged; returns the cells that failed.

        Args:
          cells: cells to run.
          show: receives a line of progress after each cell.

        Raises:
          Fault: STOPPED_EARLY or INTERRUPTED after a signal; the same command continues.
        """
        study = self.study
        pending = [c for c in cells if study_folder.status(study, c) not in ("done", "diverged")]
        pending = [c for c in pending if not c.same_as]
        seconds: list[float] = []
        for i, cell in enumerate(pending, 1):
            code = self.run(cell)
            self._raise_if_signalled(f"{len(pending) - i + 1} of {len(cells)} cells are not done")
            cell_seconds = study.record(cell)["seconds"]
            seconds.append(cell_seconds)
            left = sum(seconds) / len(seconds) * (len(pending) - i) / 60
            times = f"{cell_seconds:.0f} s{_device_warning(study, cell)}; {left:.0f} min left"
            show(f"{i}/{len(pending)} {cell.name}: {_outcome(code)}, {times}")
        finished = ("done", "diverged")
        return [cell for cell in pending if study_folder.status(study, cell) not in finished]

    def run(self, cell: Cell, *, write: bool = True, show: bool = False) -> int:
        """Trains a cell; returns its exit code, 128 + n if signal n killed it.

        Args:
          cell: cell to train.
          write: write the log and the record. Of several processes of one training, only the first
            may write them.
          show: also print the training's output.
        """
        record = self.study.record(cell) if write else {}
        files.inside(self.study.path, self.study.run_path(cell))
        files.inside(self.study.path, "cells").mkdir(parents=True, exist_ok=True)
        start = time.monotonic()
        if not write:
            return self._wait(self._start(cell, None))
        with (
            files.append(self.study.log_path(cell)) as log,
            self._start(cell, subprocess.PIPE if show else log) as training,
        ):
            for line in training.stdout or ():
                log.buffer.write(line)
                sys.stdout.buffer.write(line)
                sys.stdout.flush()
            code = self._wait(training)
        self.study.write_record(cell, _record(self.study, cell, record, code, start))
        return code

    def _start(self, cell: Cell, output: Any) -> "subprocess.Popen[bytes]":
        errors = None if output is None else subprocess.STDOUT
        variables = environment(cell, self._cache)
        command = training_command(self.study, cell)
        self._training = subprocess.Popen(command, env=variables, stdout=output, stderr=errors)
        if self._signal:  # the signal arrived before the training existed
            self._training.send_signal(self._signal)
        return self._training

    def _wait(self, training: "subprocess.Popen[bytes]") -> int:
        code = training.wait()
        self._training = None
        return code if code >= 0 else 128 - code

    def _raise_if_signalled(self, progress: str) -> None:
        if self._signal is None:
            return
        code = {signal.SIGTERM: STOPPED_EARLY, signal.SIGINT: INTERRUPTED}[self._signal]
        raise Fault(f"{self._signal.name}: {progress}; run the same command again", code)

    def _forward_signal(self, number: int, _: Any) -> None:
        self._signal = signal.Signals(number)
        if self._training and self._training.poll() is None:
            self._training.send_signal(number)

    def __enter__(self) -> "Runner":
        numbers = (signal.SIGTERM, signal.SIGINT)
        self._handlers = {number: signal.signal(number, self._forward_signal) for number in numbers}
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)


def _record(
    study: Study, cell: Cell, before: dict[str, Any], code: int, start: float
) -> dict[str, Any]:
    lines = files.read(study.log_path(cell)).decode(errors="replace").splitlines()
    return {
        "exit": code,
        "seconds": round(before.get("seconds", 0) + time.monotonic() - start, 1),
        "attempts": before.get("attempts", 0) + 1,
        "lines": [line for line in lines if line.strip()][-LAST_LINES:] if code else [],
    }


def _outcome(code: int) -> str:
    return {0: "done", NUMERIC: "diverged"}.get(code, f"exit {code}")


def _device_warning(study: Study, cell: Cell) -> str:
    """Returns a warning if a cell ran on another number of devices than the grid asks for."""
    metadata = json_files.read_or_ignore(study.run_path(cell) / "metadata.json")
    devices = metadata.get("devices", cell.devices)
    if cell.devices in (0, devices):
        return ""
    return f", on {devices} devices instead of {cell.devices}"
