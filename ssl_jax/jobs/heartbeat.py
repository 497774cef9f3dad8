"""Heartbeat files: the last report of each process about its own progress.

The watchdog writes `WORKDIR/heartbeat/PROCESS.json`, and the supervisor reads it. Standard library
only.
"""

import json
import pathlib
from typing import Any

from ssl_jax.jobs import files

FOLDER = "heartbeat"  # in the workdir


def read(workdir: pathlib.Path, process: int) -> dict[str, Any]:
    """Returns the last report of a process; {} if there is none or it is not valid JSON.

    Keys: "pid", "started" (seconds since the epoch), "phase", "first_step", "step" and "phases"
    (seconds per phase).
    """
    try:
        return json.loads((workdir / FOLDER / f"{process}.json").read_text())
    except (OSError, ValueError):
        return {}


def write(workdir: pathlib.Path, process: int, report: dict[str, Any]) -> None:
    """Replaces the report of a process atomically; the heartbeat folder must exist."""
    # Not durable: the watchdog thread must not wait for a slow disk and miss a stuck process.
    file = workdir / FOLDER / f"{process}.json"
    with files.atomic_write(file, durable=False) as stream:
        stream.write(f"{json.dumps(report)}\n".encode())
