"""Pieces of a page: everything that comes from a run is escaped here."""

import base64
import html
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

ESCAPE = html.escape


def document(name: str, body: str) -> str:
    """A whole page that needs no network and no script."""
    style = pathlib.Path(__file__).with_name("page.css").read_text()
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{ESCAPE(name)}</title>\n<style>\n{style}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def header(name: str, facts: Iterable[str]) -> str:
    """The top of a page."""
    return f"<header><h1>{ESCAPE(name)}</h1><p>{ESCAPE(' · '.join(facts))}</p></header>"


def section(heading: str, content: str) -> str:
    """A card of the page; `content` is HTML."""
    return f"<section>\n<h2>{ESCAPE(heading)}</h2>\n{content}\n</section>"


def absent(sentence: str) -> str:
    """What stands in the place of what the run has not produced."""
    return f'<p class="absent">{ESCAPE(sentence)}</p>'


def note(sentence: str) -> str:
    """A sentence that explains what follows."""
    return f'<p class="note">{ESCAPE(sentence)}</p>'


def code(text: str) -> str:
    """Lines to copy."""
    return f"<pre>{ESCAPE(text)}</pre>"


def figure(picture: bytes, alt: str, caption: str, *, kind: str = "") -> str:
    """A PNG with its caption; `kind` is "", "narrow" or "half"."""
    data = base64.b64encode(picture).decode()
    return (
        f'<figure{f" class={kind}" if kind else ""}><img alt="{ESCAPE(alt)}" '
        f'src="data:image/png;base64,{data}"><figcaption>{ESCAPE(caption)}</figcaption></figure>'
    )


def boxes(facts: Iterable[tuple[str, str]]) -> str:
    """(number, what it is) side by side."""
    cells = "".join(f"<div><b>{ESCAPE(b)}</b><span>{ESCAPE(s)}</span></div>" for b, s in facts)
    return f'<div class="facts">{cells}</div>' if cells else ""


def settings(values: Mapping[str, Any], *, caption: str = "") -> str:
    """Table of names and values."""
    rows = "".join(
        f"<tr><th>{ESCAPE(str(key))}</th><td>{ESCAPE(text(value))}</td></tr>"
        for key, value in values.items()
    )
    name = f"<caption>{ESCAPE(caption)}</caption>" if caption else ""
    return f'<table class="settings">{name}<tbody>{rows}</tbody></table>'


def grid(head: Iterable[str], rows: Iterable[str], *, kind: str = "numbers") -> str:
    """Table of columns named `head`, which scrolls where it is too wide; rows are HTML."""
    names = "".join(f"<th>{ESCAPE(name)}</th>" for name in head)
    return (
        f'<div class="scroll"><table class="{kind}"><thead><tr>{names}</tr></thead>\n'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def plain_row(name: str, cells: Iterable[Any]) -> str:
    """A row of `grid` whose cells are text."""
    return (
        f"<tr><th>{ESCAPE(name)}</th>"
        + "".join(f"<td>{ESCAPE(text(cell))}</td>" for cell in cells)
        + "</tr>"
    )


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        nested = isinstance(value, dict) and value
        found |= flat(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return found


def text(value: Any) -> str:
    """A value of a config or protocol, as people read it."""
    if isinstance(value, list | tuple):
        return ", ".join(map(text, value))
    if isinstance(value, float):
        return f"{value:.6g}"
    return "none" if value in ("", None, {}) else str(value)
