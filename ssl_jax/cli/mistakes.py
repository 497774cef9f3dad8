"""Turns errors of the flag parser into one message that says what to write instead."""

import difflib
import itertools
import re
import sys
from collections.abc import Sequence
from typing import NoReturn

from absl import flags

from ssl_jax import config as configuration
from ssl_jax.cli import config_file
from ssl_jax.config import suggestions
from ssl_jax.errors import BAD_CONFIG, USAGE, Fault

FLAGS = flags.FLAGS


def explain(error: Exception, argv: Sequence[str]) -> NoReturn:
    """Raises a Fault that describes an error of the flag parser.

    Args:
      error: what absl or ml_collections raised.
      argv: the command line, with paths for shipped configs.
    """
    if "config" in FLAGS and not config_values(argv) and FLAGS["config"].value is None:
        raise Fault("--config is missing; see --help", USAGE) from error
    fields = known_fields(argv)
    if config_values(argv) and "Overriding config is not allowed" in str(error):
        message = "--config: this verb takes the config of the run. Set single fields, such as"
        raise Fault(f"{message} --config.optim.lr=0.1; see --help", USAGE) from error
    if isinstance(error, flags.UnrecognizedFlagError) and "config." not in error.flagname:
        raise Fault(_unknown_flag(error.flagname, fields), USAGE) from error
    given = [word.lstrip("-").partition("=")[0] for word in argv[1:] if word.startswith("-")]
    own = [name.partition(".")[2] for name in given if name.startswith("config.")]
    if own and "config" not in FLAGS:
        flag = f"; did you mean --{own[0]}?" if _flag_of(own[0]) else ""
        message = f"--config.{own[0]}: this verb uses the run's config{flag}"
        raise Fault(f"{message}; see --help", USAGE) from error
    if unknown := [name for name in own if name not in fields and not _below(name, fields)]:
        lines = [misspelt(name, fields) for name in dict.fromkeys(unknown)]
        raise Fault("\n  ".join(lines), BAD_CONFIG) from error
    for name in own:
        if name not in fields and (inside := [f for f in fields if f.startswith(f"{name}.")]):
            field = f"{name}.name" if f"{name}.name" in inside else inside[0]
            message = f"--config.{name} is a section of the config; set one of its fields, such as"
            raise Fault(f"{message} --config.{field}=VALUE", BAD_CONFIG) from error
    text = str(error).strip()
    if missing := re.search(r"Flag (--\w+) must have a value other than None", text):
        raise Fault(f"{missing[1]} is missing; see --help", USAGE) from error
    if isinstance(error, flags.Error) and "config." not in text:
        raise Fault(text.replace("flag --", ""), USAGE) from error
    text = text.replace("flag --", "") if isinstance(error, flags.Error) else f"bad config: {text}"
    raise Fault(text, BAD_CONFIG) from error


def misspelt(field: str, known: Sequence[str]) -> str:
    """Returns the message for a field that does not exist."""
    return f"{field}: unknown config field; {configuration.suggest(field, known)}"


def known_fields(argv: Sequence[str]) -> list[str]:
    """Returns the fields of the config that the command line names, of its method too.

    Raises:
      Fault: the config file has a mistake.
    """
    if values := config_values(argv):
        return list(configuration.flatten(config_file.load(values[-1])))
    config = FLAGS["config"].value if "config" in FLAGS else None
    return list(configuration.flatten(config or configuration.default_config()))


def config_values(argv: Sequence[str]) -> list[str]:
    """Returns the values of --config=VALUE and --config VALUE."""
    values = [word.partition("=")[2] for word in argv if re.match("--?config=", word)]
    return values + [b for a, b in itertools.pairwise(argv) if a in ("--config", "-config")]


def _below(name: str, fields: Sequence[str]) -> bool:
    """Tells whether `name` is a section, or a field in a dict, such as augment.local.views."""
    return any(field.startswith(f"{name}.") for field in fields) or name.startswith(
        ("augment.second.", "augment.local.", "optim.groups.")
    )


def _unknown_flag(name: str, fields: Sequence[str]) -> str:
    """Returns the message for a flag that the verb does not have."""
    settable = {field: flag for field in fields if (flag := _flag_of(field))}
    found = [settable[field] for field in suggestions.synonyms(name, list(settable))]
    found = found or difflib.get_close_matches(name, own_flags(), n=1, cutoff=0.7)
    found = found or [settable[field] for field in suggestions.similar(name, list(settable))]
    hint = f"did you mean {' or '.join(f'--{flag}' for flag in found)}? See" if found else "see"
    return f"unknown flag --{name}; {hint} --help"


def _flag_of(field: str) -> str:
    """Returns the flag that sets a field: "config.optim.lr"; "" if the verb has none."""
    if "config" in FLAGS:
        return f"config.{field}"
    return field if field.partition(".")[0] in FLAGS else ""


def own_flags() -> dict[str, flags.Flag]:
    """Returns the flags that this package defines for the verb, sorted by name."""
    by_module = FLAGS.flags_by_module_dict().items()
    own = [f for module, of in by_module if module in (sys.argv[0], "__main__") for f in of]
    own += [f for module, of in by_module if module.startswith("ssl_jax.") for f in of]
    return {flag.name: flag for flag in sorted(own, key=lambda flag: flag.name)}
