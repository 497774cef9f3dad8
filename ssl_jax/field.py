"""A field of a config: its default, its meaning, its valid values and its identity class.

`ssl_jax.config` uses it for all fields of a config, except that each modality under `inputs/`
describes the fields of its views. Importing this module imports neither JAX nor TensorFlow.
"""

import difflib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

# Identity classes: what happens if a run is resumed with another value of the field.
IDENTITY = "identity"  # refused: the field makes another run, which needs another workdir
SCHEDULE = "schedule"  # refused, unless --allow_change names the field
FREE = "free"  # accepted


# Value of a number that a run sets from its training data; see `config.adapt`. A word
# would change the type of the field, by which flags are parsed.
AUTO = -1


class Unset(NamedTuple):
    """Default of a field without a default value. The config holds None and checks the type."""

    type: type
    required: bool = True
    """False if None is a valid value."""


class Valid(NamedTuple):
    """Valid values of a field."""

    text: str
    """Follows "FIELD=VALUE: " in error messages."""

    accepts: Callable[[Any], bool]
    choices: tuple[str, ...] = ()
    """Valid words, if the field is a word or a tuple of words. The error message then names the
    nearest one."""

    def problem(self, value: Any) -> str:
        """Returns "" for a valid value, else a description of the valid values."""
        if self.accepts(value):
            return ""
        if not self.choices:
            return self.text
        words = value if isinstance(value, tuple | list) else [value]
        unknown = [word for word in words if word not in self.choices]
        return nearest(str(unknown[0]), self.choices)


class Field(NamedTuple):
    """A field of a config."""

    name: str
    """Path in the config, such as "optim.lr". A modality omits its section, "augment."."""

    default: Any
    """Default value, or `Unset`."""

    meaning: str
    """Meaning in one line of plain English, with the unit."""

    valid: Valid
    kind: str
    """Identity class: IDENTITY, SCHEDULE or FREE."""

    before: Any = ...
    """Value that runs had before the field existed; ... if every config has the field. A config
    without the field and one with this value describe the same run."""


def nearest(word: str, choices: Sequence[str]) -> str:
    """Returns "did you mean 'x'?", or lists the choices if none is similar to `word`."""
    match = difflib.get_close_matches(word, choices, n=1, cutoff=0.5)
    return f"did you mean {match[0]!r}?" if match else f"choose from: {_listed(choices)}"


def _listed(choices: Sequence[str]) -> str:
    return ", ".join(choice or "''" for choice in choices)


def one_of(*choices: str) -> Valid:
    """Accepts the given words."""
    return Valid(f"one of {_listed(choices)}", lambda value: value in choices, choices)


def words(*choices: str) -> Valid:
    """Accepts tuples of the given words."""

    def valid(value: Any) -> bool:
        return isinstance(value, tuple | list) and all(word in choices for word in value)

    return Valid(f"any of {', '.join(choices)}", valid, choices)


def number(text: str, accepts: Callable[[float], bool]) -> Valid:
    """Accepts the numbers for which `accepts` returns True."""
    return Valid(text, lambda value: isinstance(value, int | float) and accepts(value))


def numbers(text: str, accepts: Callable[[Sequence[float]], bool]) -> Valid:
    """Accepts the sequences of numbers for which `accepts` returns True."""

    def valid(values: Any) -> bool:
        sequence = isinstance(values, tuple | list)
        return sequence and all(isinstance(v, int | float) for v in values) and accepts(values)

    return Valid(text, valid)


def any_value(text: str) -> Valid:
    """Accepts every value of the field's type. Checks across fields may still refuse it."""
    return Valid(text, lambda value: True)


def or_auto(valid: Valid) -> Valid:
    """Also accepts AUTO, for a field that has a rule in `config.adapt`."""
    return valid._replace(
        text=f"{valid.text}, or {AUTO}: set from the data",
        accepts=lambda value: value == AUTO or valid.accepts(value),
    )


INFINITY = float("inf")
AT_LEAST_0 = number("0 or more", lambda x: x >= 0)
AT_LEAST_1 = number("at least 1", lambda x: x >= 1)
ABOVE_0 = number("more than 0", lambda x: x > 0)
FINITE_ABOVE_0 = number("a finite number above 0", lambda x: 0 < x < INFINITY)
FINITE = number("a finite number, 0 or more", lambda x: 0 <= x < INFINITY)
# JAX's keys drop higher bits of a seed, and NumPy refuses negative seeds.
SEED = number("a whole number from 0 to 4294967295", lambda x: 0 <= x < 2**32)
PROBABILITY = number("a probability, in [0, 1]", lambda x: 0 <= x <= 1)
POSITIVE_FRACTION = number("in (0, 1]", lambda x: 0 < x <= 1)
BELOW_1 = number("in [0, 1)", lambda x: 0 <= x < 1)
BOOLEAN = Valid("True or False", lambda value: isinstance(value, bool))
