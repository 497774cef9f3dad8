"""Prepares a workdir without checkpoints for a start at step 0, or refuses it."""

import math

from etils import epath

from ssl_jax.errors import BAD_CHECKPOINT, Fault
from ssl_jax.jobs import files, json_files
from ssl_jax.rundir import metrics
from ssl_jax.rundir.workdir import Workdir

DISCARDED = "metrics.discarded.jsonl"  # lines of attempts that never saved a step


def start_anew(run: Workdir, checkpoint_every: int) -> None:
    """Prepares a workdir without checkpoints for a start at step 0.

    A run that was killed before its first save is complete has no checkpoint. It has trained at
    most until its second save, which waits for the first, and was never evaluated. The lines of its
    metrics.jsonl move to metrics.discarded.jsonl.

    Args:
      run: workdir without checkpoints.
      checkpoint_every: steps between two checkpoints, if the workdir has no intact config.json.

    Raises:
      Fault: BAD_CHECKPOINT if the run must have had a checkpoint, CANNOT_CREATE if a file of
        metrics is a link; nothing is changed.
    """
    lines = _read_lines(run.path / metrics.FILE)
    last = _last_step(lines)
    if last > 2 * _checkpoint_every(run, checkpoint_every):
        sign = f"{metrics.FILE} reaches step {last}"
    elif results := sorted((run.path / "eval").glob("*.json")):
        sign = f"eval/{results[0].name} exists"
    else:
        _discard(run, lines)
        return
    raise Fault(
        f"{run.path} has no checkpoint, but {sign}: the checkpoints were deleted, moved or not "
        f"mounted. Nothing was changed. Restore {run.path / 'checkpoints'}, or start a new run in "
        f"another --workdir, or set this run aside: mv {run.path} {run.path}.old",
        BAD_CHECKPOINT,
    )


def _checkpoint_every(run: Workdir, default: int) -> int:
    train = json_files.read_or_ignore(run.path / "config.json").get("train")
    every = train.get("checkpoint_every") if isinstance(train, dict) else None
    return int(every) if json_files.is_number(every) else default


def _read_lines(path: epath.Path) -> list[bytes]:
    files.refuse_link(path)
    return files.read(path).splitlines(keepends=True) if path.exists() else []


def _last_step(lines: list[bytes]) -> int:
    steps = map(metrics.parse_step, lines)
    return int(max((step for step in steps if math.isfinite(step)), default=0))


def _discard(run: Workdir, lines: list[bytes]) -> None:
    if lines:
        path = run.path / DISCARDED
        last = lines[-1].rstrip(b"\n") + b"\n"
        files.write(path, b"".join([*_read_lines(path), *lines[:-1], last]))
        (run.path / metrics.FILE).unlink()
        print(f"no step was saved before: step 0 again; {len(lines)} lines are in {path}")
