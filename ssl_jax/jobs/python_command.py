"""The command that runs a module of the package in a child process. Standard library only."""

import os
import sys


def module_command(module: str) -> list[str]:
    """Returns the words of `python -m MODULE` for this interpreter.

    `python -m` puts the current folder first on the import path. The child gets it only if this
    process has it: the command `ssl-jax` has not, so a file such as jax.py in the current folder
    never replaces a library.
    """
    folder = os.getcwd()
    has_folder = any(os.path.abspath(path or folder) == folder for path in sys.path)
    return [sys.executable, *([] if has_folder else ["-P"]), "-m", module]
