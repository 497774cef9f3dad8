"""Placeholders for the classes and functions that pickles refer to.

The interpreter in `unpickle` calls placeholders only; it never looks up a name of a pickle.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from ssl_jax.weights.files import checks
from ssl_jax.weights.files.checks import Refused, quote

AllowedNames = Mapping[str, Callable[..., Any] | None]
"""Names that a pickle may refer to, and the placeholder for a call of each.

None means that the pickle may refer to the name but not call it.
"""

_MAX_DEPTH = 32  # levels of nested dictionaries


@dataclasses.dataclass(frozen=True, slots=True)
class GlobalName:
    """Name of a class or function that a pickle refers to; it is never looked up."""

    dotted: str


class Ignored:
    """Placeholder for objects that do not matter; it drops everything that is put into it."""

    def __init__(self, *args: Any):
        pass


class Buildable:
    """Placeholder for an object whose state the pickle sets after its creation."""

    def build(self, state: Any) -> None:
        """Sets the state from the pickle.

        Raises:
          Refused: if the state is invalid.
        """
        raise NotImplementedError


def set_item(target: dict[str, Any], key: Any, value: Any) -> None:
    """Sets an item with the key as a string; keys other than strings and numbers are dropped.

    Numbers are converted because a file can choose numbers whose hashes collide.
    """
    if isinstance(key, str | int | float):
        target[key if isinstance(key, str) else str(key)] = value


def make_dict(*args: Any) -> dict[str, Any]:
    """Returns a plain dictionary in place of OrderedDict, defaultdict or Counter.

    Nothing is copied, because a pickle could repeat the copy many times. The dictionary that a
    Counter is made of is returned itself. The list of pairs that Python 2 makes an OrderedDict of
    is emptied.

    Raises:
      TypeError: if a list holds anything but pairs.
    """
    result: dict[str, Any] = {}
    for arg in args:
        if isinstance(arg, dict):
            return arg
        if isinstance(arg, list):
            for pair in arg:
                if not isinstance(pair, list | tuple) or len(pair) != 2:
                    raise TypeError
                set_item(result, *pair)
            arg.clear()
    return result


COMMON_NAMES: AllowedNames = {
    "collections.OrderedDict": make_dict,
    "collections.defaultdict": make_dict,
    "collections.Counter": make_dict,
    "argparse.Namespace": Ignored,
    "pathlib.Path": Ignored,
    "pathlib.PosixPath": Ignored,
    "pathlib.PurePosixPath": Ignored,
    "pathlib.WindowsPath": Ignored,
    **{
        f"{module}.{name}": Ignored if name in ("set", "frozenset", "slice", "complex") else None
        for module in ("builtins", "__builtin__")
        for name in ("set", "frozenset", "slice", "complex", "list", "dict", "int", "float", "str")
    },
}
"""Names that checkpoints often refer to beside tensors: command lines, counters, paths."""


def flatten(tree: Any, separator: str) -> dict[str, Buildable]:
    """Returns the `Buildable` leaves of nested dictionaries by their joined keys; drops the others.

    Raises:
      Refused: if the dictionaries are nested too deeply, hold too many values, or if two leaves
        have the same name.
    """
    leaves: dict[str, Buildable] = {}
    todo, seen = [("", tree, 0)], 0
    while todo:
        prefix, node, depth = todo.pop()
        seen += len(node)
        if depth > _MAX_DEPTH:
            raise Refused(f"its dictionaries are nested more than {_MAX_DEPTH} levels deep")
        if seen > checks.MAX_TENSORS:
            raise Refused(f"its dictionaries hold more than {checks.MAX_TENSORS:,} values")
        for key, value in node.items():
            if not isinstance(value, dict | Buildable):
                continue
            # Check prefixes here, because copies of one of several megabytes would add up.
            name = checks.check_name(prefix + key)
            if isinstance(value, dict):
                todo.append((name + separator, value, depth + 1))
            elif name in leaves:
                raise Refused(f"tensor {quote(name)} occurs twice")
            else:
                leaves[name] = value
    return leaves
