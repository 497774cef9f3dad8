"""A study on disk: its config and grids, and how far each cell is.

STUDY/study.json          config, the command's words that made it, grids
STUDY/runs/NAME/          workdir of a cell, as `ssl_jax.train` writes it
STUDY/cells/NAME.log      what the training printed
STUDY/cells/NAME.json     how it ended: exit code, seconds of all attempts, last lines
"""

import json
import pathlib
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from ssl_jax import config as configuration
from ssl_jax.errors import BAD_CONFIG, MISSING_INPUT, NUMERIC, STOPPED_EARLY, Fault
from ssl_jax.rundir import workdir
from ssl_jax.study import cells
from ssl_jax.study.cells import Cell

FILE = "study.json"
# May differ when a study goes on: none changes a number of it.
FREE = (
    *("data.dir", "data.on_bad_image", "data.max_bad", "augment.placement"),
    *("train.log_every", "train.checkpoint_every", "train.keep", "parallel.fsdp"),
)


class Study(NamedTuple):
    """A study's folder, and what is known of it."""

    path: pathlib.Path
    arguments: list[str]  # of the command that made the config: --config and its overrides
    config: ConfigDict
    grids: list[str]
    cells: list[Cell]  # of all grids

    def run(self, cell: Cell) -> pathlib.Path:
        """The workdir of a cell, or of the one whose training it shares."""
        return self.path / "runs" / (cell.same_as or cell.name)

    def log(self, cell: Cell) -> pathlib.Path:
        """What the training of a cell prints."""
        return self.path / "cells" / f"{cell.same_as or cell.name}.log"

    def record(self, cell: Cell) -> dict[str, Any]:
        """How the last attempt at a cell ended, {} when there was none."""
        file = self._record(cell)
        return json.loads(file.read_text()) if file.exists() else {}

    def write_record(self, cell: Cell, record: dict[str, Any]) -> None:
        """See `record`."""
        workdir.write_json(self._record(cell), record)

    def _record(self, cell: Cell) -> pathlib.Path:
        return self.log(cell).with_suffix(".json")


def open_study(path: pathlib.Path, config: ConfigDict, arguments: list[str], text: str) -> Study:
    """The study at `path`, with one more grid if `text` is one; nothing is written.

    Raises:
      Fault: bad config or grid, no grid at all, or a study of another config.
    """
    found = workdir.Workdir(path).read_json(FILE) or {}
    if found:
        _check(path, found["config"], config)
    grids = list(dict.fromkeys([*found.get("grids", ()), *filter(None, [text])]))
    if not grids:
        message = f"no study at {path} yet: give --grid, e.g. --grid='batch=256,512;seed=0,1,2'"
        raise Fault(message, MISSING_INPUT)
    return Study(path, arguments, config, grids, cells.of_grids(config, grids))


def save(study: Study) -> None:
    """Writes study.json."""
    content = {
        "arguments": study.arguments,
        "config": json.loads(configuration.to_json(study.config)),
        "grids": study.grids,
    }
    (study.path / "cells").mkdir(exist_ok=True)
    workdir.write_json(study.path / FILE, content)


def arguments(path: pathlib.Path) -> list[str]:
    """The words that made the config of the study at `path`; [] when there is none."""
    return (workdir.Workdir(path).read_json(FILE) or {}).get("arguments", [])


def _check(path: pathlib.Path, before: dict[str, Any], config: ConfigDict) -> None:
    old, new = (
        configuration.drop_implied(configuration.flatten(one))
        for one in (before, json.loads(configuration.to_json(config)))
    )
    differing = [
        f"{field}: {old.get(field, 'absent')!r} -> {new.get(field, 'absent')!r}"
        for field in sorted(old.keys() | new.keys())
        if old.get(field, "absent") != new.get(field, "absent") and field not in FREE
    ]
    if differing:
        raise Fault(
            f"{path} holds a study of another config:\n  "
            + "\n  ".join(differing)
            + "\nuse another --workdir, or vary the field by --grid",
            BAD_CONFIG,
        )


def status(study: Study, cell: Cell) -> str:
    """How far a cell is.

    Returns:
      "done": final checkpoint and evaluation are there. "diverged": the loss was not finite, which
      is a result. "failed": another end, tried again by the same command. "unfinished": stopped
      in the middle, goes on by the same command. "missing": not started.
    """
    code = study.record(cell).get("exit")
    if is_done(study.run(cell), cell.config):
        return "done"
    if code == NUMERIC:
        return "diverged"
    if code not in (None, 0, STOPPED_EARLY):
        return "failed"
    return "unfinished" if study.run(cell).exists() else "missing"


def is_done(run: pathlib.Path, config: ConfigDict) -> bool:
    """Whether the run of `config` is trained to its end and evaluated."""
    read = workdir.Workdir(run).read_json
    data, evaluated = read("metadata.json"), read("eval/.done")
    if not data or not evaluated:
        return False
    steps = total_steps(config, data["train_images"])
    made = [word for word, by in evaluated.items() if by["step"] == steps]
    saved = run / "checkpoints" / str(steps) / "MANIFEST.json"
    return saved.exists() and set(config.eval.protocols) <= set(made)


def total_steps(config: ConfigDict, images: int) -> int:
    """Length of a cell on so many train images."""
    from ssl_jax.data import pipeline

    epochs = config.train.epochs
    return config.train.steps or pipeline.total_steps(images, config.train.batch_size, epochs)
