"""The file eval/.done: the finished protocols, and the step and settings of their numbers.

A run that is started again after its end prints the tables from the files, if this file says that
they are complete.
"""

import json
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from ssl_jax.evals import files
from ssl_jax.evals.context import Context
from ssl_jax.jobs import json_files
from ssl_jax.rundir import workdir

DONE = ".done"


def is_done(config: ConfigDict, path: Path, step: int) -> bool:
    """Returns True if all protocols of the config are finished for this step and its settings."""
    done, wanted = _read(path), settings(config, step)
    return bool(done) and all(done.get(name) == wanted for name in config.eval.protocols)


def begin(context: Context) -> None:
    """Removes the numbers of other steps, and unmarks the protocols that run again."""
    files.remove_other_steps(context.path, context.subject.step)
    if context.is_own:
        _mark(context, finished=False)


def finish(context: Context) -> None:
    """Marks the protocols as finished."""
    if context.is_own:
        _mark(context, finished=True)


def _mark(context: Context, *, finished: bool) -> None:
    names, step = context.options.protocols, context.subject.step
    done = {name: by for name, by in _read(context.path).items() if name not in names}
    # The numbers of other steps were removed.
    done = {name: by for name, by in done.items() if by.get("step") == step}
    done |= dict.fromkeys(names, settings(context.config, step)) if finished else {}
    if done:
        workdir.write_json(context.path / "eval" / DONE, done)
    else:
        (context.path / "eval" / DONE).unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any]:
    """Returns {protocol: settings}; {} without the file, or if it is damaged."""
    content = json_files.read_or_ignore(path / "eval" / DONE)
    # In early releases without a choice of protocols, this file held the settings of all of them.
    return {name: by for name, by in content.items() if isinstance(by, dict)}


def settings(config: ConfigDict, step: int) -> dict[str, Any]:
    """Returns what the numbers depend on besides the checkpoint, as JSON reads it back."""
    options = {field: value for field, value in config.eval.items() if field != "protocols"}
    data = {"step": step, "split": config.data.split, "eval_split": config.data.eval_split}
    if label := config.data.get("label", ""):  # absent from the files of older evaluations
        data["label"] = label
    if share := config.data.get("holdout", 0):
        data["holdout"] = share
    return json.loads(json.dumps(data | options))
