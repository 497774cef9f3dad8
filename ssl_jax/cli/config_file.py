"""Finds and loads the file of --config, and describes mistakes in it in one message."""

import difflib
import os
import pathlib
import runpy
import traceback

from absl import flags
from ml_collections import ConfigDict

from ssl_jax import config as configuration
from ssl_jax import configs
from ssl_jax.cli import saved_config
from ssl_jax.errors import BAD_CONFIG, Fault

FLAGS = flags.FLAGS
SAVED = saved_config.__file__  # stands for the config.json of a run


def config_path(value: str) -> str:
    """Returns the value of --config as "path/to/file.py" or "path/to/file.py:variant".

    Args:
      value: "simclr:digits", the config.json of a run, or the path of a Python file, which is
        returned unchanged.

    Raises:
      Fault: no shipped config has this name, or the name has no variant.
    """
    name, colon, variant = value.partition(":")
    if os.path.basename(value) == saved_config.FILE:
        return f"{SAVED}:{os.path.dirname(value) or os.curdir}"
    if name.endswith(".py") or os.sep in name:
        return value
    names = configs.names()
    if name not in names:
        hint = configuration.nearest(name, names)
        message = f"--config={value}: no config is named {name!r}; {hint}"
        raise Fault(f"{message}\n  a file is given as --config=path/to/file.py:variant", BAD_CONFIG)
    if not variant:
        variants = ", ".join(f"{name}:{variant}" for variant in configs.variants(name))
        raise Fault(f"--config={value}: add a variant; choose from: {variants}", BAD_CONFIG)
    return f"{configs.FOLDER / name}.py{colon}{variant}"


def load(value: str) -> ConfigDict:
    """Returns the config of "path/to/file.py" or "path/to/file.py:variant".

    Raises:
      Fault: the file is missing, is not Python, or its `get_config` is missing or fails. The
        message names the file and the line.
    """
    name, colon, variant = value.partition(":")
    path = pathlib.Path(name)
    if path.is_dir():
        message = f"--config: {name} is a folder; of a run, name its {saved_config.FILE}"
        raise Fault(message, BAD_CONFIG)
    if not path.is_file():
        raise Fault(f"--config: there is no file {name}{_similar_file(path)}", BAD_CONFIG)
    # ml_collections loaded the file before, so flags that the file defines exist.
    for flag in FLAGS.flags_by_module_dict().get("config_config", []):
        delattr(FLAGS, flag.name)
    try:
        get_config = runpy.run_path(name).get("get_config")
        if get_config is None:
            message = f"{name} has no function get_config(variant), which returns the config"
            raise Fault(f"{message}; see docs/train.md", BAD_CONFIG)
        config = get_config(variant) if colon else get_config()
    except Fault as fault:
        text = str(fault)
        is_told = name in text or name == SAVED
        raise Fault(text if is_told else f"--config={value}: {text}", fault.code) from None
    except Exception as error:
        text = f"{type(error).__name__}: {_text(error)}{_origin(error, name)}"
        raise Fault(f"{name}, line {_line(error, name)}: {text}", BAD_CONFIG) from error
    if not isinstance(config, ConfigDict):
        kind = type(config).__name__
        raise Fault(f"{name}: get_config returned {kind}, not a ConfigDict", BAD_CONFIG)
    return config


def _line(error: Exception, name: str) -> int | str:
    """Returns the last line of the file that the error comes from."""
    if isinstance(error, SyntaxError) and error.filename == name:
        return error.lineno or "?"
    own = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == name]
    return own[-1] if own and own[-1] else "?"


def _origin(error: Exception, name: str) -> str:
    """Returns where an error was raised that comes from a module which the file imports."""
    file, line = name, None
    for frame in traceback.extract_tb(error.__traceback__):
        file, line = frame.filename, frame.lineno
    if isinstance(error, SyntaxError) and error.filename:
        file, line = error.filename, error.lineno
    own = file == name or not pathlib.Path(file).is_file()
    return "" if own else f" (raised in {file}, line {line})"


def _text(error: Exception) -> str:
    return error.msg if isinstance(error, SyntaxError) else str(error)


def _similar_file(path: pathlib.Path) -> str:
    """Returns a suggestion for the path of a file that does not exist."""
    names = configs.names()
    if path.stem in names:
        return f"; the shipped config is --config={path.stem}:VARIANT, without a path"
    beside = [file.name for file in sorted(path.parent.glob("*.py"))]
    if near := difflib.get_close_matches(path.name, beside, n=1, cutoff=0.7):
        return f"; did you mean {str(path.with_name(near[0]))!r}?"
    if near := difflib.get_close_matches(path.stem, names, n=1, cutoff=0.7):
        return f"; did you mean the shipped config --config={near[0]}:VARIANT?"
    return ""
