"""Heartbeat files: the last report of each process about its own progress.

The watchdog writes `WORKDIR/heartbeat/PROCESS.json`, and the supervisor reads it. Standard library
only.
"""

import json
import pathlib
from typing import Any

from ssl_jax.jobs import files, json_files
from ssl_jax.jobs.json_files import is_number

FOLDER = "heartbeat"  # in the workdir


def read(workdir: pathlib.Path, process: int) -> dict[str, Any]:
    """Returns the last report of a process; {} if there is none or it is damaged.

    Keys: "pid", "started" (seconds since the epoch), "phase", "first_step", "step" and "phases"
    (seconds per phase).
    """
    try:
        report = json_files.read_object(workdir / FOLDER / f"{process}.json")
    except (OSError, ValueError):
        return {}
    numbers = [report.get(name) for name in ("started", "first_step", "step")]
    phases = report.get("phases")
    valid = isinstance(phases, dict) and all(map(is_number, [*numbers, *phases.values()]))
    return report if valid else {}


def write(workdir: pathlib.Path, process: int, report: dict[str, Any]) -> None:
    """Replaces the report of a process atomically; the heartbeat folder must exist."""
    # Not durable: the watchdog thread must not wait for a slow disk and miss a stuck process.
    file = workdir / FOLDER / f"{process}.json"
    files.write(file, f"{json.dumps(report)}\n", durable=False)
