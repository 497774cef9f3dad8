"""Evaluation protocols, one module each, found by name.

A protocol is one module in this package. Its public symbols are:

* `run(context, **variant) -> Measured`: measures every feature set.
* `describe(context, results, **variant) -> dict`: the protocol in words and values, stored beside
  the numbers. `results` is what `run` returned.
* `heading(protocol) -> str`: its title in printed tables, from what `describe` returned.
* optional, with the defaults of `Protocol`: NEEDS, ORDER, AXIS, MEASURES, `variants(options)`,
  `problem(options, count)`, `check(options, facts)` and `absent(options)`.
"""

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ssl_jax.data.source import Facts

Variants = dict[str, dict[str, Any]]
CountLabels = Callable[[int], dict[str, int] | None]
"""enough -> labels of each class that occurs among the training examples. Counting ends when every
class has `enough` labels. None if too many labels must be read to count so far."""


class Measured(NamedTuple):
    """The outcome of one protocol."""

    results: dict[str, dict[str, Any]]
    """Numbers by feature set, as JSON holds them. "accuracy" is a number, or a list along AXIS."""

    predictions: Mapping[str, np.ndarray] = {}
    """By feature set, the predicted label of every test example, [m]."""


class Needs(NamedTuple):
    """Conditions under which a protocol applies."""

    labels: bool = True
    """Needs a labelled test split. Protocols without labels also measure training examples."""

    train_features: bool = True
    """Needs the features of the training examples, `Context.sets`. Their labels are checked."""

    layers: bool = False
    """Needs the outputs of the encoder's layers, `Subject.layers`."""

    frames: bool = False
    """Needs the features of single frames, `Subject.frames`."""

    input: str = ""
    """Optional field of `Input` that the protocol uses: "pair" or "light"."""

    towers: bool = False
    """Needs embeddings of the parts of an example, `Subject.towers`."""

    vectors: bool = False
    """Needs a vector for each word, `Subject.vectors`."""

    method: bool = False
    """Applies only to methods whose `evals` name the protocol."""


class Protocol(NamedTuple):
    """A protocol's module with its defaults filled in."""

    name: str
    run: Callable[..., Measured]
    describe: Callable[..., dict[str, Any]]
    heading: Callable[[dict[str, Any]], str]

    needs: Needs = Needs()

    order: int = 100
    """Position among the protocols. Smaller numbers run first, equal ones by name."""

    variants: Callable[[Any], Variants] | None = None
    """(config.eval) -> {file name without .json: keywords of `run`}; None makes one file with the
    protocol's name."""

    problem: Callable[[Any, CountLabels], str] = lambda options, count: ""
    """(config.eval, count) -> why the protocol cannot run on the training examples, "" if it can.
    Called before training."""

    check: Callable[[Any, Facts], None] = lambda options, facts: None
    """(config.eval, `Source.facts` of the training examples) -> None. Raises Fault if the protocol
    could not run with them. Called before training, unless `absent` gives a reason."""

    absent: Callable[[Any], str] = lambda options: ""
    """(config.eval) -> why the protocol has nothing to measure and is skipped, "" if it has."""

    axis: str = ""
    """Key of the list in the results along which "accuracy" is a list; "" for one accuracy."""

    measures: tuple[str, ...] = ()
    """Keys of the numbers that the table shows, for a protocol without accuracy."""

    def files(self, options: Any) -> Variants:
        """Returns {file name without .json: keywords of `run`} under the options `config.eval`."""
        return self.variants(options) if self.variants else {self.name: {}}


def names() -> list[str]:
    """Returns the names of all protocols without importing them."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def get(name: str) -> Protocol:
    """Returns a protocol.

    Raises:
      ValueError: there is no protocol with this name; the message lists all names.
    """
    if name not in names():
        raise ValueError(f"unknown protocol {name!r}; choose one of: {', '.join(names())}")
    module = importlib.import_module(f"{__name__}.{name}")
    symbols = ("NEEDS", "ORDER", "variants", "problem", "check", "absent", "AXIS", "MEASURES")
    optional = {
        symbol.lower(): getattr(module, symbol) for symbol in symbols if hasattr(module, symbol)
    }
    return Protocol(name, module.run, module.describe, module.heading, **optional)
