"""Grids of settings as text: "batch=64,128;epochs=4,8;lr_rule=linear,sqrt;seed=0,1,2"."""

import ast
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from ssl_jax import config as configuration

# Short names of the fields that studies vary most.
SHORT_NAMES = {
    "batch": "train.batch_size",
    "epochs": "train.epochs",
    "steps": "train.steps",
    "lr_rule": "optim.lr_rule",
    "seed": "train.seed",
}
DEVICES = "devices"  # number of devices that share the batch; not a config field
_SHORT_NAME_OF_FIELD = {field: name for name, field in SHORT_NAMES.items()}
# Order of keys in cell names, whatever the order in the grid; other fields come before the seed.
_NAME_ORDER = ("batch", "epochs", "steps", "lr_rule", DEVICES)
Grid = dict[str, tuple[Any, ...]]


def parse(text: str, config: ConfigDict) -> tuple[Grid, list[str]]:
    """Parses a grid.

    A field with a short name is listed by its short name, however the text spells it. Values have
    the types of the config's fields.

    Args:
      text: KEY=VALUE,VALUE;KEY=VALUE,...
      config: config of the study.

    Returns:
      The values of each key in the order of the text, and the problems of the text.
    """
    flat = configuration.flatten(config)
    grid: Grid = {}
    problems = []
    for part in filter(None, (part.strip() for part in text.split(";"))):
        key, equals, values = (piece.strip() for piece in part.partition("="))
        key = _SHORT_NAME_OF_FIELD.get(key, key)
        field = SHORT_NAMES.get(key, key)
        if not equals or not values:
            problems.append(f"--grid: {part!r}: write KEY=VALUE,VALUE")
        elif key in grid:
            problems.append(f"--grid: {key}: given twice; put all of its values into one list")
        elif key != DEVICES and field not in flat:
            known = [*SHORT_NAMES, DEVICES, *flat]
            problems.append(f"--grid: {key}: unknown; {_nearest(key, known)}")
        else:
            default = 1 if key == DEVICES else flat[field]
            grid[key], value_problems = _parse_values(key, values, default)
            problems += value_problems
    if not grid and not problems:
        problems.append("--grid: empty; e.g. 'batch=256,512;lr_rule=linear,sqrt;seed=0,1,2'")
    if "steps" in grid and "epochs" in grid:
        problems.append("--grid: steps and epochs: give only one, because steps override epochs")
    if min((n for n in grid.get(DEVICES, ()) if isinstance(n, int)), default=1) < 1:
        problems.append("--grid: devices: each value must be at least 1")
    return grid, problems


def settings(grid: Grid) -> Iterator[dict[str, Any]]:
    """Yields all combinations of values; the last key varies fastest."""
    for values in itertools.product(*grid.values()):
        yield dict(zip(grid, values, strict=True))


def cell_name(setting: Mapping[str, Any]) -> str:
    """Returns a folder name like "batch=64-epochs=4-seed=0", equal for any order of keys."""
    others = sorted(set(setting) - {*_NAME_ORDER, "seed"})
    keys = [key for key in (*_NAME_ORDER, *others, "seed") if key in setting]
    return "-".join(f"{key}={_safe(format_value(setting[key]))}" for key in keys)


def format_value(value: Any) -> str:
    """Formats a value for flags and for readers: 4.0 becomes "4"."""
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def _safe(text: str) -> str:
    return "".join(c if c.isalnum() or c in "._+" else "_" for c in text)


def _nearest(key: str, known: list[str]) -> str:
    # Only fields have dots, so "optim.lrr" is compared with fields, "batchs" with short names.
    choices = [k for k in known if ("." in k) == ("." in key)]
    return configuration.nearest(key, choices)


def _parse_values(key: str, text: str, default: Any) -> tuple[tuple[Any, ...], list[str]]:
    values: list[Any] = []
    problems = []
    for word in _split(text):
        try:
            value = _parse_value(word, default)
        except (ValueError, SyntaxError):
            kind = type(default).__name__ if default is not None else "value"
            problems.append(f"--grid: {key}={word}: not a valid {kind}; the config has {default!r}")
            continue
        if value in values:
            problems.append(f"--grid: {key}={word}: given twice")
        values.append(value)
    return tuple(values), problems


def _split(text: str) -> list[str]:
    """Splits at commas outside brackets: "(10,),(0,)" gives two values."""
    words, depth = [""], 0
    for c in text:
        depth += (c in "([{") - (c in ")]}")
        if c == "," and depth == 0:
            words.append("")
        else:
            words[-1] += c
    return [word.strip() for word in words]


def _parse_value(word: str, default: Any) -> Any:
    """Parses a word as the default's type; raises ValueError or SyntaxError."""
    if isinstance(default, bool):
        booleans = {"true": True, "false": False}
        return booleans[word.lower()] if word.lower() in booleans else _raise_value_error()
    if isinstance(default, int | float):
        return type(default)(word)
    if isinstance(default, tuple | list):
        value = ast.literal_eval(word)
        return tuple(value) if isinstance(value, tuple | list) else _raise_value_error()
    if isinstance(default, str):
        return word
    return ast.literal_eval(word)


def _raise_value_error() -> Any:
    raise ValueError
