"""Cells of a study: each is one training run, the study's config with one setting of a grid."""

import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from ssl_jax import config as configuration
from ssl_jax.errors import BAD_CONFIG, Fault
from ssl_jax.study import grid, learning_rates


class Cell(NamedTuple):
    """Cell of a study: one training run.

    Attributes:
      name: name of the cell and of its folder.
      setting: values by the grid's keys.
      fields: config fields that the training command sets.
      config: the resulting config.
      rate: peak learning rate.
      same_as: name of the cell that already runs the same training; "" if this cell runs it.
    """

    name: str
    setting: dict[str, Any]
    fields: dict[str, Any]
    config: ConfigDict
    rate: float
    same_as: str

    @property
    def devices(self) -> int:
        """Number of devices that share the batch; 0 uses all available devices."""
        return self.setting.get(grid.DEVICES, 0)


def make_cells(config: ConfigDict, grids: Sequence[str]) -> list[Cell]:
    """Returns the cells of all grids without repetition.

    A cell's number is its index. Cells of later grids come last, so that numbers never change.
    Cells whose configs and rates agree are one training: only the first of them runs.

    Args:
      config: config of the study.
      grids: texts of --grid, see `grid.parse`.

    Raises:
      Fault: BAD_CONFIG with all problems of all grids and cells.
    """
    cells = [_make_cell(config, setting) for setting in _settings(config, grids)]
    _raise_problems(problem for cell in cells for problem in _batch_problems(cell))
    first_names: dict[str, str] = {}
    for i, cell in enumerate(cells):
        first = first_names.setdefault(_training_key(cell), cell.name)
        cells[i] = cell._replace(same_as=first if first != cell.name else "")
    return cells


def _settings(config: ConfigDict, grids: Sequence[str]) -> list[dict[str, Any]]:
    """Returns the settings of all grids, each once, after checking their configs."""
    settings: dict[str, dict[str, Any]] = {}
    problems: list[str] = []
    for text in grids:
        parsed, grid_problems = grid.parse(text, config)
        problems += grid_problems
        if "lr_rule" in parsed:
            problems += learning_rates.problems(config)
        for setting in grid.settings({key: values for key, values in parsed.items() if values}):
            name = grid.cell_name(setting)
            if settings.setdefault(name, setting) != setting:
                problems.append(
                    f"--grid: two cells would have the name {name}: their values are too similar"
                )
    for setting in settings.values():
        cell_config = _with_fields(config, _fields(setting))
        problems += configuration.problems(cell_config)
        problems += [
            f"{name}=-1: a study needs a given value, not one set from the data"
            for name in configuration.auto_fields(cell_config)
            if not name.startswith("eval.")
        ]
    _raise_problems(problems)
    return list(settings.values())


def _raise_problems(problems: Iterable[str]) -> None:
    if unique := list(dict.fromkeys(problems)):
        message = "bad grid or config; no cell was started:\n  "
        raise Fault(message + "\n  ".join(unique), BAD_CONFIG)


def _fields(setting: dict[str, Any]) -> dict[str, Any]:
    """Returns the config fields of a setting, without converted learning rates."""
    fields = {grid.SHORT_NAMES.get(k, k): v for k, v in setting.items() if k != grid.DEVICES}
    if "epochs" in setting:
        fields["train.steps"] = 0  # steps would override epochs
    return fields


def _with_fields(config: ConfigDict, fields: dict[str, Any]) -> ConfigDict:
    config = config.copy_and_resolve_references()
    for field, value in fields.items():
        *path, last = field.split(".")
        section = config
        for key in path:
            section = section[key]
        section[last] = value
    return config


def _make_cell(config: ConfigDict, setting: dict[str, Any]) -> Cell:
    fields = _fields(setting) | learning_rates.base_rate_fields(config, setting)
    cell_config = _with_fields(config, fields)
    rate = learning_rates.peak_rates(cell_config)[""]
    return Cell(grid.cell_name(setting), setting, fields, cell_config, rate, "")


def _batch_problems(cell: Cell) -> list[str]:
    """Checks that the batch divides over the cell's devices."""
    from ssl_jax import parallel

    config = cell.config
    try:
        parallel.check_batch(
            config.train.batch_size,
            cell.devices or 1,
            microbatch=config.train.microbatch,
            bn_group=config.model.bn_group,
            views=config.augment.views,
        )
    except Fault as fault:
        return [str(fault)]
    return []


def _training_key(cell: Cell) -> str:
    """Returns a key that is equal for equal trainings: it holds the rates, not their rules."""
    flat = configuration.flatten(json.loads(configuration.to_json(cell.config)))
    rules = ("optim.lr", "optim.lr_rule")
    flat = {k: v for k, v in flat.items() if k not in rules}
    if flat["train.steps"]:
        del flat["train.epochs"]
    # Converting a base rate forth and back changes its last digits, so they are dropped.
    peaks = learning_rates.peak_rates(cell.config)
    rates = {key: f"{rate:.12g}" for key, rate in peaks.items()}
    groups = {k: v for k, v in flat.items() if k.startswith("optim.groups.")}
    flat = {k: v for k, v in flat.items() if k not in groups or not k.endswith((".lr", ".lr_rule"))}
    return json.dumps([flat, rates, cell.devices], sort_keys=True)
