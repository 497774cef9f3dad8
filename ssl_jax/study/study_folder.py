"""Folder of a study: its config, its grids, and the status of each cell.

STUDY/study.json          config, the command-line words that set it, grids
STUDY/runs/NAME/          workdir of a cell, written by `ssl_jax.train`
STUDY/cells/NAME.log      output of the cell's training
STUDY/cells/NAME.json     how the training ended: exit code, seconds of all attempts, last lines
"""

import json
import pathlib
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from ssl_jax import config as configuration
from ssl_jax import configs
from ssl_jax.errors import (
    BAD_CONFIG,
    BAD_DATA,
    MISSING_INPUT,
    NUMERIC,
    STOPPED_EARLY,
    USAGE,
    Fault,
)
from ssl_jax.jobs import files, json_files
from ssl_jax.jobs.json_files import is_number
from ssl_jax.rundir import workdir
from ssl_jax.study.cells import Cell, make_cells

FILE = "study.json"
# Fields that may change when a study continues, because they change none of its numbers.
FREE_FIELDS = (
    *("data.dir", "data.on_bad_image", "data.max_bad", "data.max_megapixels"),
    "augment.placement",
    *("train.log_every", "train.checkpoint_every", "train.keep", "parallel.fsdp"),
)


class Study(NamedTuple):
    """A study.

    Attributes:
      path: folder of the study.
      arguments: words of the command that set the config: --config and its overrides.
      config: config before the grids' settings.
      grids: texts of all grids, in the order they were added.
      cells: cells of all grids.
    """

    path: pathlib.Path
    arguments: list[str]
    config: ConfigDict
    grids: list[str]
    cells: list[Cell]

    def run_path(self, cell: Cell) -> pathlib.Path:
        """Returns the workdir of a cell, or of the cell that runs the same training."""
        return self.path / "runs" / (cell.same_as or cell.name)

    def log_path(self, cell: Cell) -> pathlib.Path:
        """Returns the file with the output of a cell's training."""
        return self.path / "cells" / f"{cell.same_as or cell.name}.log"

    def record(self, cell: Cell) -> dict[str, Any]:
        """Reads how the last attempt at a cell ended.

        Returns:
          {} without an attempt; else "exit" (exit code), "seconds" (of all attempts), "attempts",
          "lines" (last lines of the output).
        """
        record = json_files.read_or_ignore(self._record_path(cell))
        lines = record.get("lines")
        texts = [line for line in lines if isinstance(line, str)] if isinstance(lines, list) else []
        numbers = {k: v for k in ("exit", "seconds", "attempts") if is_number(v := record.get(k))}
        return numbers | {"lines": texts} if "exit" in numbers else {}

    def write_record(self, cell: Cell, record: dict[str, Any]) -> None:
        """Writes what `record` reads."""
        workdir.write_json(self._record_path(cell), record)

    def _record_path(self, cell: Cell) -> pathlib.Path:
        return self.log_path(cell).with_suffix(".json")


def open_study(path: pathlib.Path, config: ConfigDict, arguments: list[str], grid: str) -> Study:
    """Opens or creates the study at `path` and adds a grid; writes nothing.

    Args:
      path: folder of the study.
      config: config before the grid's settings.
      arguments: words of the command that set the config.
      grid: text of the grid to add; "" adds none.

    Raises:
      Fault: if the config or a grid is bad, the study has no grid, or it has another config.
    """
    saved = workdir.Workdir(path).read_json(FILE) or {}
    before, grids = saved.get("config", {}), saved.get("grids", [])
    is_text = isinstance(grids, list) and all(isinstance(text, str) for text in grids)
    if not isinstance(before, dict) or not is_text:
        raise Fault(f"{path / FILE}: its config or grids are damaged; restore it", BAD_DATA)
    if saved:
        _check_same_config(path, before, config)
    grids = list(dict.fromkeys([*grids, *filter(None, [grid])]))
    if not grids:
        message = f"no study at {path} yet: give --grid, e.g. --grid='batch=256,512;seed=0,1,2'"
        raise Fault(message, MISSING_INPUT)
    return Study(path, arguments, config, grids, make_cells(config, grids))


def save(study: Study) -> None:
    """Writes study.json."""
    content = {
        "arguments": study.arguments,
        "config": json.loads(configuration.to_json(study.config)),
        "grids": study.grids,
    }
    files.inside(study.path, "cells").mkdir(exist_ok=True)
    workdir.write_json(study.path / FILE, content)


def saved_arguments(path: pathlib.Path) -> list[str]:
    """Reads the words that set the config of the study at `path`; [] if there is no study.

    The folder may come from anybody, so it names no config file but those of the package.

    Raises:
      Fault: the study was started with another config file, or the words are not flags.
    """
    words = (workdir.Workdir(path).read_json(FILE) or {}).get("arguments", [])
    if not isinstance(words, list) or not all(isinstance(w, str) for w in words):
        raise Fault(f"{path / FILE}: 'arguments' is not a list of flags; restore it", BAD_DATA)
    for word in words:
        flag, _, value = word.partition("=")
        if not flag.startswith(("--config", "-config")):
            message = f"{path / FILE}: {word!r} does not set the config; restore the file"
            raise Fault(message, BAD_DATA)
        if flag.lstrip("-") == "config" and not configs.is_shipped(value.partition(":")[0]):
            raise Fault(
                f"{path} was started with the config file {value}. To run its code again, pass it: "
                f"--config={value}",
                USAGE,
            )
    return words


def _check_same_config(path: pathlib.Path, before: dict[str, Any], config: ConfigDict) -> None:
    old, new = (
        configuration.drop_implied(configuration.flatten(content))
        for content in (before, json.loads(configuration.to_json(config)))
    )
    differing = [
        configuration.difference(field, old, new)
        for field in sorted(old.keys() | new.keys())
        if old.get(field, "absent") != new.get(field, "absent") and field not in FREE_FIELDS
    ]
    if differing:
        raise Fault(
            f"{path} contains a study with another config:\n  "
            + "\n  ".join(differing)
            + "\nuse another --workdir, or vary the field by --grid",
            BAD_CONFIG,
        )


def status(study: Study, cell: Cell) -> str:
    """Returns the status of a cell.

    Returns:
      "done": the final checkpoint and all evaluations exist.
      "diverged": the loss was not finite; this is a result.
      "failed": the training ended otherwise; the same command tries it again.
      "unfinished": the training was stopped; the same command resumes it.
      "missing": the training has not started.
    """
    code = study.record(cell).get("exit")
    if is_done(study.run_path(cell), cell.config):
        return "done"
    if code == NUMERIC:
        return "diverged"
    if code not in (None, 0, STOPPED_EARLY):
        return "failed"
    return "unfinished" if study.run_path(cell).exists() else "missing"


def is_done(run: pathlib.Path, config: ConfigDict) -> bool:
    """Returns True if the run at `run` is trained to its end, maybe early, and evaluated there."""
    metadata = json_files.read_or_ignore(run / "metadata.json")
    images, early = metadata.get("train_images"), metadata.get("stopped_early")
    if not is_number(images):
        return False
    steps = early.get("step") if isinstance(early, dict) else total_steps(config, int(images))
    evaluated = json_files.read_or_ignore(run / "eval" / ".done").items()
    done = [name for name, by in evaluated if isinstance(by, dict) and by.get("step") == steps]
    manifest = run / "checkpoints" / str(steps) / "MANIFEST.json"
    return manifest.exists() and set(config.eval.protocols) <= set(done)


def total_steps(config: ConfigDict, images: int) -> int:
    """Returns the number of training steps for a data set of `images` training images."""
    from ssl_jax.data import pipeline

    epochs = config.train.epochs
    return config.train.steps or pipeline.total_steps(images, config.train.batch_size, epochs)
