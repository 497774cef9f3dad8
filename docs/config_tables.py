"""Fills in the tables of the page "Config fields" when MkDocs builds the site.

The page marks the place of each table by a line such as `<!-- fields of optim -->`.
"""

import html
import pathlib
import re
import sys
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from ssl_jax import config

MARK = re.compile(r"<!-- fields of (\w+) -->")


def on_page_markdown(markdown: str, **page: Any) -> str:
    """Replaces the marks by tables. MkDocs calls it for each page."""
    del page
    return MARK.sub(lambda mark: table(mark[1]), markdown)


def table(section: str) -> str:
    """Returns the fields of one section of the config as a Markdown table."""
    lines = ["| field | default | meaning | valid values | class |", "|---|---|---|---|---|"]
    for row in config.describe():
        if row.name.startswith(f"{section}."):
            default = row.default if row.default == "required" else f"`{row.default}`"
            cells = [f"`{row.name}`", default, _text(row.meaning), _text(row.valid), row.kind]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _text(cell: str) -> str:
    return re.sub(r"([*|])", r"\\\1", html.escape(cell, quote=False))
