"""Heartbeat files: the last report of each process about its own progress.

The watchdog writes `WORKDIR/heartbeat/PROCESS.json`, and the supervisor reads it. Standard library
only.
"""

import json
import os
import pathlib
from typing import Any

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
    folder = workdir / FOLDER
    temporary = folder / f".{process}.json"
    temporary.write_text(json.dumps(report) + "\n")
    os.replace(temporary, folder / f"{process}.json")
