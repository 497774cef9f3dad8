"""Values as text: shortened lines, flattened configs, durations."""

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


def duration(seconds: float) -> str:
    """Formats seconds, for example as "1 h 05 min"."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"
