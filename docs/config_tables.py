"""Writes the tables of the page "Config fields" into docs/config.md.

    python docs/config_tables.py

The tables are committed, so that code hosts show them. `tests/test_docs.py` checks that they are up
to date.
"""

import html
import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from ssl_jax import config

PAGE = pathlib.Path(__file__).with_name("config.md")
TABLE = re.compile(r"^(## (\w+)\n(?:(?!##|\|).*\n)*)(?:\|.*\n)+", re.M)


def filled(page: str) -> str:
    """Returns the page with a new table in every section that has one."""
    return TABLE.sub(lambda section: f"{section[1]}{table(section[2])}\n", page)


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


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text()))
