"""A grid of settings, as text: "batch=64,128;epochs=4,8;lr_rule=linear,sqrt;seed=0,1,2"."""

import ast
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from ssl_jax import config as configuration

# Short names of the fields that a study varies most.
SHORT = {
    "batch": "train.batch_size",
    "epochs": "train.epochs",
    "steps": "train.steps",
    "lr_rule": "optim.lr_rule",
    "seed": "train.seed",
}
DEVICES = "devices"  # no field: how many devices hold the batch
NAMES = {field: name for name, field in SHORT.items()}
# In names of cells, whatever the order of the grid; other fields come before the seed.
ORDER = ("batch", "epochs", "steps", "lr_rule", DEVICES)
Grid = dict[str, tuple[Any, ...]]


def parse(text: str, config: ConfigDict) -> tuple[Grid, list[str]]:
    """The values of every key, in the text's order, and what is wrong with the text.

    A field that has a short name goes by it, however it was spelled. Values have the types of
    the config's fields.
    """
    flat = configuration.flatten(config)
    grid: Grid = {}
    problems = []
    for part in filter(None, (part.strip() for part in text.split(";"))):
        key, equals, values = (piece.strip() for piece in part.partition("="))
        key = NAMES.get(key, key)
        field = SHORT.get(key, key)
        if not equals or not values:
            problems.append(f"--grid: {part!r}: write KEY=VALUE,VALUE")
        elif key in grid:
            problems.append(f"--grid: {key}: given twice; put all of its values into one list")
        elif key != DEVICES and field not in flat:
            known = [*SHORT, DEVICES, *flat]
            problems.append(f"--grid: {key}: unknown; {_nearest(key, known)}")
        else:
            default = 1 if key == DEVICES else flat[field]
            grid[key], wrong = _values(key, values, default)
            problems += wrong
    if not grid and not problems:
        problems.append("--grid: empty; e.g. 'batch=256,512;lr_rule=linear,sqrt;seed=0,1,2'")
    if "steps" in grid and "epochs" in grid:
        problems.append("--grid: steps and epochs: give one of the two, steps would override")
    if min((n for n in grid.get(DEVICES, ()) if isinstance(n, int)), default=1) < 1:
        problems.append("--grid: devices: each at least 1")
    return grid, problems


def settings(grid: Grid) -> Iterator[dict[str, Any]]:
    """Every combination, in the order of the text, the last key fastest."""
    for values in itertools.product(*grid.values()):
        yield dict(zip(grid, values, strict=True))


def name(setting: Mapping[str, Any]) -> str:
    """ "batch=64-epochs=4-lr_rule=linear-seed=0": of a folder, the same for any order of keys."""
    others = sorted(set(setting) - {*ORDER, "seed"})
    keys = [key for key in (*ORDER, *others, "seed") if key in setting]
    return "-".join(f"{key}={_safe(spelled(setting[key]))}" for key in keys)


def spelled(value: Any) -> str:
    """A value as a flag takes it and as people write it: 4 for 4.0."""
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def _safe(text: str) -> str:
    return "".join(c if c.isalnum() or c in "._+" else "_" for c in text)


def _nearest(key: str, known: list[str]) -> str:
    # Of "optim.lrr" the nearest is a field, of "batchs" a short name: fields alone have dots.
    choices = [k for k in known if ("." in k) == ("." in key)]
    return configuration.nearest(key, choices)


def _values(key: str, text: str, default: Any) -> tuple[tuple[Any, ...], list[str]]:
    found: list[Any] = []
    problems = []
    for word in _split(text):
        try:
            value = _typed(word, default)
        except (ValueError, SyntaxError):
            kind = type(default).__name__ if default is not None else "value"
            problems.append(f"--grid: {key}={word}: no {kind}; the config has {default!r}")
            continue
        if value in found:
            problems.append(f"--grid: {key}={word}: given twice")
        found.append(value)
    return tuple(found), problems


def _split(text: str) -> list[str]:
    """At commas outside brackets: "(10,),(0,)" are two values."""
    words, depth = [""], 0
    for c in text:
        depth += (c in "([{") - (c in ")]}")
        if c == "," and depth == 0:
            words.append("")
        else:
            words[-1] += c
    return [word.strip() for word in words]


def _typed(word: str, default: Any) -> Any:
    """The word as a value of the default's type; raises ValueError or SyntaxError."""
    if isinstance(default, bool):
        return {"true": True, "false": False}[word.lower()] if word.lower() in _BOOLEAN else _no()
    if isinstance(default, int | float):
        return type(default)(word)
    if isinstance(default, tuple | list):
        value = ast.literal_eval(word)
        return tuple(value) if isinstance(value, tuple | list) else _no()
    if isinstance(default, str):
        return word
    return ast.literal_eval(word)


_BOOLEAN = ("true", "false")


def _no() -> Any:
    raise ValueError
