"""History of a run: every attempt to train it, and the share of wall time that was useful.

`WORKDIR/goodput.json` lists every attempt (under "lives") and totals over all attempts. Goodput is
the share of wall time spent on steps that were kept. A step is kept if a checkpoint of that step
or a later one exists when its process ends, because the next attempt resumes from there. Standard
library only.
"""

import dataclasses
import json
import pathlib
from typing import Any

from ssl_jax.jobs import files, heartbeat, json_files, progress
from ssl_jax.jobs.json_files import is_number

FILE = "goodput.json"


@dataclasses.dataclass
class Attempt:
    """A start of the command. The fields are written to goodput.json.

    Args:
      started: start time, in seconds since the epoch.
      ended: end time, in seconds since the epoch; the current time while the attempt runs.
      code: exit code; None while it runs, or if no supervisor saw it end.
      reason: the exit code in words.
      first_step: step at which it began; 0 for a new run.
      last_step: last step that it completed.
      saved_step: step of the newest checkpoint when it ended.
      phases: seconds in each phase, as reported in the heartbeat; "train" is the time of steps.
    """

    started: float
    ended: float
    code: int | None = None
    reason: str = ""
    first_step: int = 0
    last_step: int = 0
    saved_step: int = 0
    phases: dict[str, float] = dataclasses.field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Duration in seconds."""
        return max(0.0, self.ended - self.started)

    @property
    def lost_steps(self) -> int:
        """Steps after the last checkpoint; while the attempt runs, the steps not saved yet."""
        return max(0, self.last_step - max(self.saved_step, self.first_step))

    @property
    def kept_seconds(self) -> float:
        """Seconds spent on kept steps: the training time times the share of kept steps."""
        done = self.last_step - self.first_step
        if done <= 0:
            return 0.0
        return self.phases.get("train", 0.0) * (done - self.lost_steps) / done

    def update(self, workdir: pathlib.Path, process: int) -> None:
        """Reads steps and phases from the process's heartbeat and from the checkpoints."""
        report = heartbeat.read(workdir, process)
        if report and report["started"] >= self.started:  # not that of an earlier attempt
            self.first_step, self.last_step = report["first_step"], report["step"]
            self.phases = report["phases"]
        self.saved_step = progress.saved_step(workdir)


def summary(attempts: list[Attempt]) -> dict[str, Any]:
    """Returns the contents of goodput.json.

    In "seconds", "start_up" is the time before the first step: imports, connecting, restoring and
    compiling, and all of an attempt without a step. "other" is saving, evaluating and reporting.
    "stopped" is the time between attempts.
    """
    wall = max(0.0, attempts[-1].ended - attempts[0].started)
    training = sum(attempt.phases.get("train", 0.0) for attempt in attempts)
    phases = ("save", "evaluate", "finish")
    other = sum(attempt.phases.get(name, 0.0) for attempt in attempts for name in phases)
    running = sum(attempt.seconds for attempt in attempts)
    kept = sum(attempt.kept_seconds for attempt in attempts)
    return {
        "goodput": round(kept / wall, 4) if wall else 0.0,
        "starts": len(attempts),
        "kept_steps": attempts[-1].saved_step,
        "lost_steps": sum(attempt.lost_steps for attempt in attempts),
        "seconds": {
            "wall": round(wall, 2),
            "kept_steps": round(kept, 2),
            "training": round(training, 2),
            "start_up": round(max(0.0, running - training - other), 2),
            "other": round(other, 2),
            "stopped": round(max(0.0, wall - running), 2),
        },
        "lives": [
            dataclasses.asdict(attempt) | {"lost_steps": attempt.lost_steps} for attempt in attempts
        ],
    }


def read(workdir: pathlib.Path) -> list[Attempt]:
    """Returns the attempts in goodput.json, without damaged ones."""
    records = json_files.read_or_ignore(workdir / FILE).get("lives")
    return [Attempt(**r) for r in map(_fields, records) if r] if isinstance(records, list) else []


def _fields(record: Any) -> dict[str, Any]:
    """Returns the fields of an attempt in goodput.json; {} if one is missing or damaged."""
    empty = dataclasses.asdict(Attempt(0.0, 0.0))
    fields = {k: v for k, v in record.items() if k in empty} if isinstance(record, dict) else {}
    phases, code = fields.get("phases", {}), fields.get("code")
    if not {"started", "ended"} <= fields.keys() or not isinstance(phases, dict):
        return {}
    numbers = [v for k, v in fields.items() if k not in ("phases", "code", "reason")]
    numbers += [*phases.values(), 0 if code is None else code]
    return fields if all(map(is_number, numbers)) else {}


def write(workdir: pathlib.Path, attempts: list[Attempt]) -> None:
    """Replaces goodput.json atomically: a crash leaves either the old or the new file."""
    text = f"{json.dumps(summary(attempts), indent=2)}\n"
    files.write(workdir / FILE, text, durable=False)
