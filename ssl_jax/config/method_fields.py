"""Meanings and defaults of a method's hyperparameters, read from the source of its `make`.

Importing a method takes seconds, because it imports JAX.
"""

import ast
import pathlib
import re
from typing import Any

from ssl_jax.config import valid


def meanings(method: str) -> dict[str, str]:
    """Returns {"temperature": "Temperature of the softmax."}; {} for an external method."""
    if method not in valid.METHODS:
        return {}
    make = _make(method)
    text = (ast.get_docstring(make) or "").partition("\nArgs:\n")[2]
    arguments = re.findall(r"^  (\w+(?:, \w+)*): ((?:.*\n?)(?:    .*\n?)*)", text, re.M)
    found = {
        name: " ".join(meaning.split())
        for names, meaning in arguments
        for name in names.split(", ")
    }
    keywords = [argument.arg for argument in make.args.kwonlyargs]
    return {name: _sentence(found[name]) for name in keywords if name in found}


def defaults(method: str) -> dict[str, Any]:
    """Returns {"temperature": 0.1}; leaves out required hyperparameters.

    Args:
      method: name of a method of this package.
    """
    arguments = _make(method).args
    pairs = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    return {argument.arg: ast.literal_eval(node) for argument, node in pairs if node is not None}


def _make(method: str) -> ast.FunctionDef:
    path = pathlib.Path(__file__).parent.parent / "methods" / f"{method}.py"
    functions = (
        node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)
    )
    return next(node for node in functions if node.name == "make")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
