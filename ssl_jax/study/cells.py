"""The cells of a study: each a config, made of the study's config and one setting of its grids."""

import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from ssl_jax import config as configuration
from ssl_jax.errors import BAD_CONFIG, Fault
from ssl_jax.study import grid, rates


class Cell(NamedTuple):
    """One training."""

    name: str  # of its folder
    setting: dict[str, Any]  # by the grid's keys
    fields: dict[str, Any]  # of the config that its command sets
    config: ConfigDict
    rate: float  # the highest learning rate
    same_as: str  # name of the cell that is this very training, "" of those that run

    @property
    def devices(self) -> int:
        """How many devices hold the batch; 0: as many as there are."""
        return self.setting.get(grid.DEVICES, 0)


def of_grids(config: ConfigDict, texts: Sequence[str]) -> list[Cell]:
    """All cells of the grids, each once, numbered by their place: a new grid's come behind.

    Cells of one rate and of equal settings otherwise are one training: only the first is run.

    Raises:
      Fault: BAD_CONFIG with everything that is wrong with any grid or any cell.
    """
    settings = _settings(config, texts)
    made = [_cell(config, setting) for setting in settings]
    _refuse(problem for cell in made for problem in _division_problems(cell))
    first: dict[str, str] = {}
    for i, cell in enumerate(made):
        twin = first.setdefault(_training(cell), cell.name)
        made[i] = cell._replace(same_as=twin if twin != cell.name else "")
    return made


def _settings(config: ConfigDict, texts: Sequence[str]) -> list[dict[str, Any]]:
    """By name, of valid configs."""
    found: dict[str, dict[str, Any]] = {}
    problems: list[str] = []
    for text in texts:
        parsed, wrong = grid.parse(text, config)
        problems += wrong
        if "lr_rule" in parsed:
            problems += rates.problems(config)
        for setting in grid.settings({key: values for key, values in parsed.items() if values}):
            name = grid.name(setting)
            if found.setdefault(name, setting) != setting:
                problems.append(f"--grid: two cells would be called {name}: their values are alike")
    for setting in found.values():
        problems += configuration.problems(_with(config, _fields(setting)))
    _refuse(problems)
    return list(found.values())


def _refuse(problems: Iterable[str]) -> None:
    if once := list(dict.fromkeys(problems)):
        raise Fault("bad grid or config, no cell was started:\n  " + "\n  ".join(once), BAD_CONFIG)


def _fields(setting: dict[str, Any]) -> dict[str, Any]:
    """What a setting sets, less the rates."""
    fields = {grid.SHORT.get(k, k): v for k, v in setting.items() if k != grid.DEVICES}
    if "epochs" in setting:
        fields["train.steps"] = 0  # which override epochs
    return fields


def _with(config: ConfigDict, fields: dict[str, Any]) -> ConfigDict:
    config = config.copy_and_resolve_references()
    for field, value in fields.items():
        *path, last = field.split(".")
        section = config
        for key in path:
            section = section[key]
        section[last] = value
    return config


def _cell(config: ConfigDict, setting: dict[str, Any]) -> Cell:
    fields = _fields(setting) | rates.fields(config, setting)
    own = _with(config, fields)
    return Cell(grid.name(setting), setting, fields, own, rates.peaks(own)[""], "")


def _division_problems(cell: Cell) -> list[str]:
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


def _training(cell: Cell) -> str:
    """What makes the training: of rates their values, not by which rule they came about."""
    flat = configuration.flatten(json.loads(configuration.to_json(cell.config)))
    rules = ("optim.lr", "optim.lr_rule")
    flat = {k: v for k, v in flat.items() if k not in rules}
    if flat["train.steps"]:
        del flat["train.epochs"]
    # A rate that was divided and multiplied again is itself but for its last digits.
    found = {key: f"{rate:.12g}" for key, rate in rates.peaks(cell.config).items()}
    groups = {k: v for k, v in flat.items() if k.startswith("optim.groups.")}
    flat = {k: v for k, v in flat.items() if k not in groups or not k.endswith((".lr", ".lr_rule"))}
    return json.dumps([flat, found, cell.devices], sort_keys=True)
