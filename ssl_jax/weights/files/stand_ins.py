"""What stands for the things that pickles refer to, so that nothing of theirs is looked up."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from ssl_jax.weights.files import checks
from ssl_jax.weights.files.checks import Refused, quote

Names = Mapping[str, Callable[..., Any] | None]
"""What a name in a pickle gives when it is called; None if it may only be named."""

_MAX_DEPTH = 32  # dictionaries in dictionaries


@dataclasses.dataclass(frozen=True, slots=True)
class Name:
    """A class or function that a pickle refers to; never looked up."""

    dotted: str


class Inert:
    """Something that pickles hold beside tensors; what is put into it is dropped."""

    def __init__(self, *args: Any):
        pass


class Built:
    """Something that a pickle makes first and fills afterwards."""

    def build(self, state: Any) -> None:
        """Takes the state that the pickle has for it."""
        raise NotImplementedError


def put(target: dict[str, Any], key: Any, value: Any) -> None:
    """Sets an item, whose key becomes a text: numbers can be chosen that make dictionaries slow."""
    if isinstance(key, str | int | float):
        target[key if isinstance(key, str) else str(key)] = value


def mapping(*args: Any) -> dict[str, Any]:
    """A dictionary, whatever kind of one it was.

    Nothing is copied, or a pickle could have it done over and over: a Counter's dictionary serves
    itself, and pairs, of which Python 2 makes an OrderedDict, leave their list.
    """
    found: dict[str, Any] = {}
    for arg in args:
        if isinstance(arg, dict):
            return arg
        if isinstance(arg, list):
            for pair in arg:
                if not isinstance(pair, list | tuple) or len(pair) != 2:
                    raise TypeError
                put(found, *pair)
            arg.clear()
    return found


COMMON: Names = {
    "collections.OrderedDict": mapping,
    "collections.defaultdict": mapping,
    "collections.Counter": mapping,
    "argparse.Namespace": Inert,
    "pathlib.Path": Inert,
    "pathlib.PosixPath": Inert,
    "pathlib.PurePosixPath": Inert,
    "pathlib.WindowsPath": Inert,
    **{
        f"{module}.{name}": Inert if name in ("set", "frozenset", "slice", "complex") else None
        for module in ("builtins", "__builtin__")
        for name in ("set", "frozenset", "slice", "complex", "list", "dict", "int", "float", "str")
    },
}
"""What is usual in checkpoints beside tensors: command lines, counters, paths."""


def flatten(tree: Any, separator: str) -> dict[str, Built]:
    """Leaves that are `Built`, by the keys on the way to them; others are dropped.

    Raises:
      Refused: too deep, too many, or two of one name.
    """
    found: dict[str, Built] = {}
    todo, seen = [("", tree, 0)], 0
    while todo:
        prefix, node, depth = todo.pop()
        seen += len(node)
        if depth > _MAX_DEPTH:
            raise Refused(f"its dictionaries are nested over {_MAX_DEPTH} deep")
        if seen > checks.MAX_TENSORS:
            raise Refused(f"its dictionaries hold over {checks.MAX_TENSORS:,} values")
        for key, value in node.items():
            if not isinstance(value, dict | Built):
                continue
            name = checks.name(prefix + key)  # now, since prefixes of megabytes would add up
            if isinstance(value, dict):
                todo.append((name + separator, value, depth + 1))
            elif name in found:
                raise Refused(f"tensor {quote(name)} is there twice")
            else:
                found[name] = value
    return found
