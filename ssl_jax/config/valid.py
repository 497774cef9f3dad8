"""Names that config fields accept, and the valid values that only one or two fields have."""

import itertools
import pathlib
import pkgutil
from typing import Any

from ssl_jax import inputs, models, plugins
from ssl_jax.field import AUTO, FINITE, FINITE_ABOVE_0, INFINITY, Valid, number, numbers, one_of


def _modules(folder: str) -> tuple[str, ...]:
    """Names of the public modules in a folder of the package, found without importing them."""
    path = pathlib.Path(__file__).parent.parent / folder
    return tuple(sorted(m.name for m in pkgutil.iter_modules([str(path)]) if m.name[0] != "_"))


METHODS = _modules("methods")
IMPORTED = "imported"  # name of the method if another project trained the weights
PROTOCOLS = _modules("evals/protocols")
DTYPES = ("auto", "float32", "bfloat16")
ON_BAD_IMAGE = ("stop", "quarantine")
STOP_ON = ("probe", "knn")


def _is_source(name: Any) -> bool:
    kind, _, inner = str(name).partition(":")
    if kind == "captions":
        return inputs.is_of_images(inner)
    return name in ("audio", "pairs", "text") or inputs.is_of_images(str(name))


def _or_external(names: Valid) -> Valid:
    """Also accepts "module:attribute", the name of an object outside the package."""
    return names._replace(
        text=f"{names.text}, or module:attribute",
        accepts=lambda name: names.accepts(name) or plugins.is_external(str(name)),
    )


SOURCES = ("audio", "captions:<images>", "digits", "folder", "pairs", "text", "tfds:<name>")
SOURCE = _or_external(Valid(f"one of {', '.join(SOURCES)}", _is_source, SOURCES))
ENCODER = _or_external(one_of(*models.names()))
METHOD = _or_external(one_of(*METHODS))
LABELS = numbers(
    f"each 0 (all labels) or at least 2: one label is held out; ({AUTO},): set from the data",
    lambda counts: tuple(counts) == (AUTO,) or all(n == 0 or n > 1 for n in counts),
)
MEAN = numbers(
    f"one finite number per channel; ({AUTO},): set from data.channels",
    lambda x: len(x) > 0 and all(abs(n) < INFINITY for n in x),
)
STD = numbers(
    f"one finite number above 0 per channel; ({AUTO},): set from data.channels",
    lambda x: tuple(x) == (AUTO,) or (len(x) > 0 and all(map(FINITE_ABOVE_0.accepts, x))),
)
PROMPTS = Valid(
    "one text or more, each with {} in place of the class name",
    lambda texts: (
        isinstance(texts, tuple | list)
        and len(texts) > 0
        and all(isinstance(text, str) and "{}" in text for text in texts)
    ),
)
RATES = numbers(
    "one rate or more, each above 0", lambda x: len(x) > 0 and all(map(FINITE_ABOVE_0.accepts, x))
)
WIDTHS = numbers(
    "one number or more, each at least 1", lambda x: len(x) > 0 and all(n >= 1 for n in x)
)
CHANNELS = numbers(
    "whole numbers from 0, each one once",
    lambda x: len(x) > 0 and len(set(x)) == len(x) and all(type(n) is int and n >= 0 for n in x),
)
DROP = number("in (0, 1)", lambda x: 0 < x < 1)
DROPS = numbers(
    "fractions of the run, rising, each in (0, 1)",
    lambda x: all(a < b for a, b in itertools.pairwise((0, *x, 1))),
)
DECAY_END = Valid("a finite number, 0 or more, or None", lambda x: x is None or FINITE.accepts(x))
