"""Config files of all methods, importable as `ssl_jax.configs` in a checkout and when installed.

In a checkout the files are in the top-level folder `configs/`, and this package points there.
`pip install` copies them beside this file. `from ssl_jax.configs import common` therefore works
from every working folder, and never finds another project's `configs` folder.
"""

import importlib
import inspect
import pathlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # mypy checks the checkout, where the module has this name
    from configs import common as common

_here = pathlib.Path(__file__).resolve().parent
_installed = any(file.name != "__init__.py" for file in _here.glob("*.py"))
FOLDER = _here if _installed else _here.parents[1] / "configs"
__path__ = [str(FOLDER)]


def names() -> list[str]:
    """Returns the names of the config files, without those that only hold shared functions."""
    files = sorted(FOLDER.glob("[!_]*.py"))
    return [file.stem for file in files if "\ndef get_config(" in file.read_text()]


def variants(name: str) -> list[str]:
    """Returns the names of the functions that complete a variant in a shipped config."""
    module = importlib.import_module(f"ssl_jax.configs.{name}")
    functions = inspect.getmembers(module, inspect.isfunction)
    own = [f for f, function in functions if function.__module__ == module.__name__]
    return [f for f in own if f != "get_config" and not f.startswith("_")]


def is_shipped(name: str) -> bool:
    """Tells whether `name` is a config file of the package: its name, or the path of the file."""
    path = pathlib.Path(name).expanduser().resolve()
    return name in names() or (path.parent == FOLDER.resolve() and path.stem in names())
