"""Progress of a run as seen from its workdir: checkpoints and signs of life.

Standard library only.
"""

import contextlib
import pathlib

from ssl_jax.jobs import heartbeat


def is_run(workdir: pathlib.Path) -> bool:
    """Returns whether a training run has started in this workdir.

    The workdir of a study is not a run: its runs have folders of their own.
    """
    return any((workdir / name).is_dir() for name in (heartbeat.FOLDER, "checkpoints"))


def saved_step(workdir: pathlib.Path) -> int:
    """Returns the step of the newest checkpoint that has a manifest; 0 if there is none."""
    manifests = (workdir / "checkpoints").glob("*/MANIFEST.json")
    return max((int(m.parent.name) for m in manifests if m.parent.name.isdecimal()), default=0)


def manifests(workdir: pathlib.Path | None) -> set[tuple[str, int]]:
    """Returns (path, modification time in ns) of every checkpoint manifest.

    Includes the manifests of a run and those of all runs of a study.
    """
    result = set()
    for pattern in ("checkpoints/*/MANIFEST.json", "runs/*/checkpoints/*/MANIFEST.json"):
        for path in workdir.glob(pattern) if workdir else ():
            with contextlib.suppress(FileNotFoundError):  # deleted in favour of a newer one
                result.add((str(path), path.stat().st_mtime_ns))
    return result


def last_sign_of_life(workdir: pathlib.Path, process: int) -> float:
    """Returns the time of the last sign of life of a process, in seconds since the epoch.

    Signs of life are changes of the process's heartbeat, of the run's metrics, checkpoints and
    evaluations, and of the heartbeats of a study's runs. Returns 0.0 if there are none.
    """
    beat = f"{heartbeat.FOLDER}/{process}.json"
    signs = [workdir / beat, workdir / "metrics.jsonl", workdir / "checkpoints", workdir / "eval"]
    signs += workdir.glob(f"runs/*/{beat}")
    return max((path.stat().st_mtime for path in signs if path.exists()), default=0.0)
