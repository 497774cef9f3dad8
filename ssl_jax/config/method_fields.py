"""Meanings of a method's hyperparameters, read from the docstring of its `make`."""

import ast
import pathlib
import re

from ssl_jax.config import valid


def meanings(method: str) -> dict[str, str]:
    """Returns {"temperature": "temperature of the softmax."}; {} for a method outside the package.

    Reads the source file, because importing a method takes seconds.
    """
    if method not in valid.METHODS:
        return {}
    path = pathlib.Path(__file__).parent.parent / "methods" / f"{method}.py"
    functions = (
        node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)
    )
    make = next(node for node in functions if node.name == "make")
    text = (ast.get_docstring(make) or "").partition("\nArgs:\n")[2]
    arguments = re.findall(r"^  (\w+(?:, \w+)*): ((?:.*\n?)(?:    .*\n?)*)", text, re.M)
    found = {
        name: " ".join(meaning.split())
        for names, meaning in arguments
        for name in names.split(", ")
    }
    keywords = [argument.arg for argument in make.args.kwonlyargs]
    return {name: _sentence(found[name]) for name in keywords if name in found}


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
