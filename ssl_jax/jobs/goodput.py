"""Goodput: the share of wall time that went into steps which were kept.

`WORKDIR/goodput.json` holds every life of the run, from start to stop, and the sums. A step is kept
if a checkpoint holds it, or a later one, when its process ends: the next life goes on from there.
Standard library only.
"""

import contextlib
import dataclasses
import json
import pathlib
from typing import Any

from ssl_jax.jobs import files

FILE = "goodput.json"
HEARTBEATS = "heartbeat"  # folder in the workdir; one file a process, see `ssl_jax.jobs.watchdog`


@dataclasses.dataclass
class Life:
    """One start of the command. Times in seconds since the epoch, durations in seconds.

    Args:
      phases: seconds in each phase, as the process told; "train" is time of steps.
      first_step, last_step: the step that it began at (0 for a new run), the last one it did.
      saved_step: of the newest checkpoint when it ended.
      code: exit code, None while it runs or where nobody saw it end.
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
        """How long it lived."""
        return max(0.0, self.ended - self.started)

    @property
    def lost(self) -> int:
        """Steps done after the last checkpoint; of a life that goes on, those not saved yet."""
        return max(0, self.last_step - max(self.saved_step, self.first_step))

    @property
    def kept(self) -> float:
        """Seconds in steps that were kept: those of all steps, by the share of steps."""
        done = self.last_step - self.first_step
        return self.phases.get("train", 0.0) * (done - self.lost) / done if done > 0 else 0.0

    def learn(self, folder: pathlib.Path, process: int) -> None:
        """Takes over what the process and the checkpoints tell by now."""
        beat = heartbeat(folder, process)
        if beat.get("started", 0.0) >= self.started:  # not one of an earlier life
            self.first_step, self.last_step = beat["first_step"], beat["step"]
            self.phases = beat["phases"]
        self.saved_step = saved_step(folder)


def summary(lives: list[Life]) -> dict[str, Any]:
    """The contents of goodput.json.

    start_up is all before the first step (imports, joining, restoring, compiling, and what a life
    without a step did); other is saving, evaluating and reporting; stopped is between lives.
    """
    wall = max(0.0, lives[-1].ended - lives[0].started)
    training = sum(life.phases.get("train", 0.0) for life in lives)
    other = sum(life.phases.get(name, 0.0) for life in lives for name in ("save", "finish"))
    alive = sum(life.seconds for life in lives)
    kept = sum(life.kept for life in lives)
    return {
        "goodput": round(kept / wall, 4) if wall else 0.0,
        "starts": len(lives),
        "kept_steps": lives[-1].saved_step,
        "lost_steps": sum(life.lost for life in lives),
        "seconds": {
            "wall": round(wall, 2),
            "kept_steps": round(kept, 2),
            "training": round(training, 2),
            "start_up": round(max(0.0, alive - training - other), 2),
            "other": round(other, 2),
            "stopped": round(max(0.0, wall - alive), 2),
        },
        "lives": [dataclasses.asdict(life) | {"lost_steps": life.lost} for life in lives],
    }


def read(folder: pathlib.Path) -> list[Life]:
    """The lives that an earlier supervisor of this workdir wrote down; [] if none is legible."""
    fields = {field.name for field in dataclasses.fields(Life)}
    try:
        lives = json.loads((folder / FILE).read_text())["lives"]
        return [Life(**{k: v for k, v in life.items() if k in fields}) for life in lives]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def write(folder: pathlib.Path, lives: list[Life]) -> None:
    """Writes goodput.json; whenever the process dies, the old or the new file is there."""
    # Not durable: the supervisor must not wait for a slow disk while it watches the command.
    with files.atomic_write(folder / FILE, durable=False) as file:
        file.write(f"{json.dumps(summary(lives), indent=2)}\n".encode())


def is_run(folder: pathlib.Path) -> bool:
    """Whether a training has begun in this workdir; a study's has its runs in folders of theirs."""
    return any((folder / name).is_dir() for name in (HEARTBEATS, "checkpoints"))


def saved_step(folder: pathlib.Path) -> int:
    """The step of the newest checkpoint with a manifest, 0 for none."""
    manifests = (folder / "checkpoints").glob("*/MANIFEST.json")
    return max((int(m.parent.name) for m in manifests if m.parent.name.isdecimal()), default=0)


def heartbeat(folder: pathlib.Path, process: int) -> dict[str, Any]:
    """What a process told last: {"pid", "step", "first_step", "phases", ...}; {} for nothing."""
    try:
        return json.loads((folder / HEARTBEATS / f"{process}.json").read_text())
    except (OSError, ValueError):
        return {}


def manifests(folder: pathlib.Path | None) -> set[tuple[str, int]]:
    """Path and time of every checkpoint with a manifest, of a run or of a study's runs."""
    found = set()
    for pattern in ("checkpoints/*/MANIFEST.json", "runs/*/checkpoints/*/MANIFEST.json"):
        for path in folder.glob(pattern) if folder else ():
            with contextlib.suppress(FileNotFoundError):  # deleted for a newer one
                found.add((str(path), path.stat().st_mtime_ns))
    return found


def last_sign(folder: pathlib.Path, process: int) -> float:
    """When a process, its run or a study's runs last showed life, in seconds since the epoch."""
    beat = f"{HEARTBEATS}/{process}.json"
    signs = [folder / beat, folder / "metrics.jsonl", folder / "checkpoints", folder / "eval"]
    signs += folder.glob(f"runs/*/{beat}")
    return max((path.stat().st_mtime for path in signs if path.exists()), default=0.0)
