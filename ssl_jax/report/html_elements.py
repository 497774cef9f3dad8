"""HTML elements of a page. They escape all text, because text from a run may contain markup.

Settings, cells and commands show the last part of each absolute path.
"""

import base64
import html
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from ssl_jax.jobs.streams import escape_controls
from ssl_jax.report.formatting import as_text, command_without_folders, without_folders


def escape(text: str) -> str:
    """Returns text as HTML that shows it, with control characters as visible escapes."""
    return html.escape(escape_controls(text))


def document(title: str, body: str) -> str:
    """Returns a complete page, which needs no network and no script.

    Args:
      title: text of the browser's title bar.
      body: HTML.
    """
    style = pathlib.Path(__file__).with_name("page.css").read_text()
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def header(title: str, facts: Iterable[str]) -> str:
    """Returns the top of a page: its title, and facts in one line below it."""
    return f"<header><h1>{escape(title)}</h1><p>{escape(' · '.join(facts))}</p></header>"


def section(heading: str, content: str) -> str:
    """Returns a section of the page; `content` is HTML."""
    return f"<section>\n<h2>{escape(heading)}</h2>\n{content}\n</section>"


def placeholder(sentence: str) -> str:
    """Returns a sentence that replaces content which the run does not have."""
    return f'<p class="absent">{escape(sentence)}</p>'


def note(sentence: str) -> str:
    """Returns a sentence that explains the table or figure below it."""
    return f'<p class="note">{escape(sentence)}</p>'


def code(text: str) -> str:
    """Returns a code block."""
    return f"<pre>{escape(text)}</pre>"


def command(text: str) -> str:
    """Returns a code block with a command in each line."""
    return code("\n".join(map(command_without_folders, text.splitlines())))


def figure(picture: bytes, alt: str, caption: str, *, kind: str = "") -> str:
    """Returns a figure with its caption.

    Args:
      picture: the PNG file's content, which the page embeds.
      alt: alternative text.
      caption: text below the picture.
      kind: "", "narrow" or "half" (width on the page).
    """
    data = base64.b64encode(picture).decode()
    return (
        f'<figure{f" class={kind}" if kind else ""}><img alt="{escape(alt)}" '
        f'src="data:image/png;base64,{data}"><figcaption>{escape(caption)}</figcaption></figure>'
    )


def fact_boxes(facts: Iterable[tuple[str, str]]) -> str:
    """Returns boxes side by side from pairs (value, label)."""
    boxes = "".join(
        f"<div><b>{escape(value)}</b><span>{escape(label)}</span></div>" for value, label in facts
    )
    return f'<div class="facts">{boxes}</div>' if boxes else ""


def settings_table(values: Mapping[str, Any], *, caption: str = "") -> str:
    """Returns a table of names and values, one pair per row."""
    rows = "".join(
        f"<tr><th>{escape(str(key))}</th><td>{_cell(value)}</td></tr>"
        for key, value in values.items()
    )
    name = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f'<table class="settings">{name}<tbody>{rows}</tbody></table>'


def table(head: Iterable[str], rows: Iterable[str], *, kind: str = "numbers") -> str:
    """Returns a table that scrolls sideways when it is too wide.

    Args:
      head: names of the columns.
      rows: HTML of each row, for example from `text_row`.
      kind: CSS classes, see page.css.
    """
    names = "".join(f"<th>{escape(name)}</th>" for name in head)
    return (
        f'<div class="scroll"><table class="{kind}"><thead><tr>{names}</tr></thead>\n'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def text_row(name: str, cells: Iterable[Any]) -> str:
    """Returns a row of `table` whose cells are text."""
    return (
        f"<tr><th>{escape(name)}</th>"
        + "".join(f"<td>{_cell(cell)}</td>" for cell in cells)
        + "</tr>"
    )


def _cell(value: Any) -> str:
    return escape(without_folders(as_text(value)))
