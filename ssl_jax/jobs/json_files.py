"""Reads JSON files that may be damaged, or written by anybody. Standard library only."""

import json
import logging
import math
import os
from typing import Any, TypeGuard

from ssl_jax.jobs import files

MAX_BYTES = 2**24
MAX_DEPTH = 32  # nested lists and objects
MAX_DIGITS = 300  # of an integer, so that it can become a float
MAX_FLOAT32 = 3.4028234663852886e38  # metrics and results are of this type

_logger = logging.getLogger(__name__)


def is_number(value: Any) -> TypeGuard[float]:
    """Returns True for an integer or float that float32 can hold; False for booleans."""
    real = isinstance(value, int | float) and not isinstance(value, bool)
    return real and abs(value) <= MAX_FLOAT32


def parse(text: str | bytes) -> Any:
    """Returns the value of a JSON text. NaN, infinity and integers too large for a float
    become None.

    Raises:
      ValueError: if the text is not JSON in Unicode, or nested deeper than `MAX_DEPTH`.
    """
    try:
        value = json.loads(
            text, parse_int=_integer, parse_float=_float, parse_constant=lambda _: None
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None
    _check_depth(value, MAX_DEPTH)
    return value


def _integer(digits: str) -> int | None:
    return int(digits) if len(digits) <= MAX_DIGITS else None


def _float(digits: str) -> float | None:
    value = float(digits)
    return value if math.isfinite(value) else None


def _check_depth(value: Any, left: int) -> None:
    if not isinstance(value, dict | list) or not value:
        return
    if not left:
        raise ValueError("nested too deeply")
    for child in value.values() if isinstance(value, dict) else value:
        _check_depth(child, left - 1)


def read_object(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Returns the object of a JSON file, see `parse`.

    Raises:
      ValueError: if the file does not hold a JSON object.
      OSError: if the file is missing, unreadable, or larger than `MAX_BYTES`.
    """
    value = parse(files.read(path, MAX_BYTES))
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def read_or_ignore(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Returns the object of a JSON file that is not essential; {} if it is missing or damaged.

    Logs one line for a damaged file.
    """
    try:
        return read_object(path)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        log_ignored(path, error)
        return {}


def log_ignored(path: str | os.PathLike[str], error: Exception) -> None:
    """Logs that a damaged file is ignored."""
    _logger.warning("ignored %r: %s", os.fspath(path), getattr(error, "strerror", None) or error)
