"""Values as text: shortened lines and paths, flattened configs, durations."""

import re
import shlex
from collections.abc import Mapping
from typing import Any


def one_line(value: str, limit: int = 300) -> str:
    """Returns the text on one line, without control characters, cut to `limit` characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in value).split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Joins nested keys by dots: {"a": {"b": 1}} becomes {"a.b": 1}. Empty dicts stay values."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        nested = isinstance(value, dict) and value
        flat |= flatten(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return flat


def as_text(value: Any) -> str:
    """Formats a value of a config or a protocol for a reader; "none" for empty values."""
    if isinstance(value, list | tuple) and value:
        return ", ".join(map(as_text, value))
    if isinstance(value, float):
        return f"{value:.6g}"
    return "none" if value in ("", None, {}, [], ()) else str(value)


def without_folders(text: str) -> str:
    """Replaces each absolute path by its last part: pages and cards are published, folders are not.

    Paths begin with "/" or "~". Addresses such as https://host/path stay unchanged.
    """
    if text.startswith(("/", "~")) and ", " not in text:  # one path, which may contain spaces
        return _last_part(text)
    return _PATH.sub(lambda match: _last_part(match[0]), text)


def command_without_folders(command: str) -> str:
    """Applies `without_folders` to each word of a command, and to each value of a flag."""
    try:
        words = shlex.split(command)
    except ValueError:
        return without_folders(command)
    short = ["".join(map(without_folders, word.partition("="))) for word in words]
    return command if short == words else shlex.join(short)


_PATH = re.compile(r"(?<![\w.:/~)\]}])(?:~[\w.-]*)?(?:/[^\s/'\",:;=<>|]+)+/?")


def _last_part(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]


def duration(seconds: float) -> str:
    """Formats seconds, for example as "1 h 05 min"; "–" for more than a human life."""
    if not abs(seconds) < 1e10:
        return "–"
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"
