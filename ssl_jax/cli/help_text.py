"""Texts of --help and --help-config."""

import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from ssl_jax import config as configuration
from ssl_jax.cli import config_file, mistakes
from ssl_jax.config import method_fields
from ssl_jax.errors import USAGE, Fault

FLAGS = flags.FLAGS
WIDTH = 100
HELP = ("--help", "-help", "-h", "--helpshort")
CONFIG_HELP = "Print the fields of the config: values, meanings and valid values. A PREFIX chooses."


def requested(argv: Sequence[str]) -> str:
    """Returns the help that the command line asks for; "" if it asks for none.

    Raises:
      Fault: --help-config names no field, or the config has a mistake.
    """
    if set(HELP) & set(argv):
        return verb()
    words = [word for word in argv if re.match(r"--?help[-_]config(=|$)", word)]
    if not words:
        return ""
    if "config" not in FLAGS:
        raise Fault("--help-config: this verb uses the run's config; see --help", USAGE)
    values = mistakes.config_values(argv)
    given = config_file.load(values[-1]) if values else FLAGS["config"].value
    return config(given, words[-1].partition("=")[2])


def verb() -> str:
    """Returns the usage, the description and the flags of the verb that runs."""
    main: Any = sys.modules["__main__"]
    name = main.__spec__.name.split(".")[1]  # "ssl_jax.train" or "ssl_jax.plan.__main__"
    lines = [
        f"usage: ssl-jax {name} [--FLAG=VALUE ...]",
        "",
        (main.__doc__ or "").strip(),
        "",
        "Flags:",
    ]
    rows = [row for flag in mistakes.own_flags().values() for row in _flag(flag)]
    if "config" in FLAGS:
        rows.append(("--help-config[=PREFIX]", CONFIG_HELP))
    width = max(len(left) for left, _ in rows) + 4
    for left, right in rows:
        lines += _columns([f"  {left}"], [width], right)
    return "\n".join(lines)


def _flag(flag: flags.Flag) -> Iterator[tuple[str, str]]:
    """Yields (flag with its value, meaning and default)."""
    required = any("other than None" in check.message for check in flag.validators)
    shown = flag.default not in (None, "", [], False)
    default = f" Default: {flag.default}." if shown else ""
    if not isinstance(flag.value, ConfigDict):
        left = f"--[no]{flag.name}" if flag.boolean else f"--{flag.name}=VALUE"
        yield left, f"{flag.help}{' Required.' if required else ''}{default}"
    if flag.name == "config":
        yield (
            "--config.FIELD=VALUE",
            "Change a field of the config; --help-config lists the fields.",
        )
    elif isinstance(flag.value, ConfigDict):
        yield f"--{flag.name}.FIELD=VALUE", f"Change a field: {', '.join(flag.value)}."


def config(given: ConfigDict | None, prefix: str) -> str:
    """Returns a table of the fields of a config.

    Args:
      given: config whose values are shown; None shows the defaults.
      prefix: start of the names to show, such as "optim"; "" shows all.

    Raises:
      Fault: no field has this prefix.
    """
    rows = list(_fields(given))
    chosen = [row for row in rows if row.name.startswith(prefix)]
    if not chosen:
        hint = configuration.suggest(prefix, [row.name for row in rows])
        raise Fault(f"--help-config={prefix}: no such field; {hint}", USAGE)
    widths = [max(len(row.name) for row in chosen) + 4, min(24, _widest(chosen))]
    lines: list[str] = []
    for row, before in zip(chosen, [None, *chosen], strict=False):
        section = row.name.partition(".")[0]
        if before is None or not before.name.startswith(f"{section}."):
            lines += [""] * bool(lines) + [section]
        notes = [row.meaning, f"Valid: {row.valid}." if row.valid else "", f"({row.kind})"]
        lines += _columns([f"  {row.name}", row.default], widths, " ".join(filter(None, notes)))
    return "\n".join(lines)


def _fields(given: ConfigDict | None) -> Iterator[configuration.Row]:
    """Yields the fields of a config with its values as defaults; the table's without a config."""
    if given is None:
        yield from configuration.describe()
        return
    rows = configuration.describe(given.data.source)
    flat = configuration.flatten(given)
    names = {row.name for row in rows}
    meanings = method_fields.meanings(given.get("method", {}).get("name", ""))
    for row in rows:
        section, _, field = row.name.partition(".")
        if field in given.get(section, {}):
            yield row._replace(default=repr(given[section][field]) if row.name in flat else "{}")
        last = row.name == "method.name"
        for name in flat if last else ():
            if name.startswith("method.") and name not in names:
                meaning = meanings.get(name.partition(".")[2], "")
                yield configuration.Row(name, repr(flat[name]), meaning, "", "identity")


def _widest(rows: Sequence[configuration.Row]) -> int:
    return max(len(row.default) for row in rows) + 2


def _columns(left: Sequence[str], widths: Sequence[int], right: str) -> list[str]:
    """Returns lines of cells side by side, the last cell wrapped. A long cell gets its own line."""
    indent, lines, line = sum(widths), [], ""
    for cell, start in zip(left, [0, *widths], strict=False):
        line = line.ljust(start) + cell
    if len(line) > indent - 2:
        lines, line = [line], ""
    wrapped = textwrap.wrap(right, WIDTH - indent) or [""]
    first = f"{line.ljust(indent)}{wrapped[0]}".rstrip()
    return [*lines, first, *(" " * indent + text for text in wrapped[1:])]
