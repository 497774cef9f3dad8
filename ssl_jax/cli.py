"""The command line of every verb: common flags, shipped configs, one-line errors, exit codes.

`cli.run` is the entry point of every verb. It reports a mistake in one message and exits with the
documented code (`ssl_jax.errors`), in under two seconds and before JAX or TensorFlow is imported.
"""

import os
import pathlib
import re
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from ssl_jax import config as configuration
from ssl_jax import configs
from ssl_jax.errors import (
    BAD_CONFIG,
    INTERRUPTED,
    OUT_OF_MEMORY,
    USAGE,
    Fault,
    exit_code,
)
from ssl_jax.jobs.stop import Stop
from ssl_jax.jobs.streams import make_streams_resilient, write_stacks_on_signal

FLAGS = flags.FLAGS
HELP = ("--help", "-help", "-h", "--helpshort")


def define_config() -> None:
    """Defines --config=NAME[:VARIANT] or FILE[:VARIANT], and overrides --config.FIELD=VALUE."""
    config_flags.DEFINE_config_file(
        "config", None, "Shipped config such as simclr:digits, or path/to/file.py:variant."
    )
    flags.mark_flag_as_required("config")


def define_workdir() -> None:
    """Defines --workdir."""
    flags.DEFINE_string(
        "workdir", None, "Folder of the run. Repeat the same command to resume the run."
    )
    flags.mark_flag_as_required("workdir")


def define_processes() -> None:
    """Defines --coordinator, --processes, --process and --start_timeout."""
    flags.DEFINE_string("coordinator", "", "HOST:PORT of process 0, for jobs of several processes.")
    flags.DEFINE_integer("processes", 0, "Number of processes of the job.", lower_bound=0)
    flags.DEFINE_integer("process", -1, "Index of this process, from 0.", lower_bound=-1)
    flags.DEFINE_integer(
        "start_timeout", 300, "Seconds to wait for all processes to connect.", lower_bound=1
    )


def start(stop: Stop) -> None:
    """Connects this process to the other processes of the job, so that they stop together.

    Call it before any other use of JAX. A second call does nothing.
    """
    from ssl_jax.jobs import bootstrap

    job = FLAGS.coordinator, FLAGS.processes, FLAGS.process
    bootstrap.connect(*job, timeout=FLAGS.start_timeout)
    stop.join_job()


def define_section(name: str) -> None:
    """Defines --NAME.FIELD=VALUE for one section of the config."""
    _define(name, configuration.default_config()[name], prefix=f"{name}.")


def define_overrides(config: ConfigDict) -> None:
    """Defines --config.FIELD=VALUE for the fields of `config`, without a config file."""
    _define("config", config, prefix="")


def _define(name: str, config: ConfigDict, prefix: str) -> None:
    # ml_collections reads the command line when it defines the flag, and raises a traceback for a
    # misspelt field.
    known = list(configuration.flatten(config, prefix))
    for argument in sys.argv[1:]:
        field = prefix + argument.split("=")[0].removeprefix(f"--{name}.")
        if argument.startswith(f"--{name}.") and field not in known:
            stop_with(_misspelt(field, known), BAD_CONFIG)
    config_flags.DEFINE_config_dict(name, config)


def run(main: Callable[[], None]) -> None:
    """Parses the flags and calls `main`. A Fault becomes one message and its exit code."""

    def guarded(argv: list[str]) -> None:
        if argv[1:]:
            stop_with(f"unexpected argument {argv[1]!r}; flags are written --name=value", USAGE)
        try:
            main()
        except (Exception, KeyboardInterrupt) as error:
            if message := _message(error):
                stop_with(message, exit_code(error))
            _leave(traceback.format_exc(), 1)
            raise

    # TensorFlow reads these variables when it is imported. Its oneDNN kernels round differently on
    # different machines, so a run would depend on the machine that augmented its images.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    make_streams_resilient()
    write_stacks_on_signal()
    logging.set_verbosity(logging.WARNING)
    app.run(guarded, flags_parser=_parse)


def _message(error: BaseException) -> str:
    """Returns the message for the user; "" for an unexpected error, which needs its traceback."""
    code = exit_code(error)
    if isinstance(error, Fault):
        return str(error)
    if code == INTERRUPTED:
        return "interrupted"
    if isinstance(error, OSError):
        return f"cannot read or write {error.filename or ''}: {error}"
    if code == OUT_OF_MEMORY:
        advice = "lower train.batch_size, set train.microbatch or use more devices"
        return f"out of memory: {advice}\n{next(iter(str(error).splitlines()), '')}"
    return ""


def stop_with(message: str, code: int) -> NoReturn:
    """Prints a message to standard error and exits with `code`."""
    _leave(f"ssl_jax: {message}", code)
    print(f"ssl_jax: {message}", file=sys.stderr, flush=True)
    sys.exit(code)


def _leave(text: str, code: int) -> None:
    """Ends a process of a multi-process job at once; a normal exit would wait for the others."""
    if "jax" not in sys.modules:
        return
    from ssl_jax.jobs import bootstrap

    bootstrap.exit_now(text, code)


def _parse(argv: list[str]) -> list[str]:
    """Parses the flags, and turns the tracebacks of ml_collections into one line."""
    if "--helpfull" in argv:
        return app.parse_flags_with_usage(argv)
    if set(HELP) & set(argv):
        _show_help()
    try:
        return FLAGS(_with_config_paths(argv), known_only=False)
    except Fault as error:
        stop_with(str(error), error.code)
    except flags.UnrecognizedFlagError as error:
        if error.flagname.startswith("config."):
            if "config" not in FLAGS:
                stop_with(f"--{error.flagname}: this verb uses the run's config; see --help", USAGE)
            stop_with(
                _misspelt(error.flagname.removeprefix("config."), _known_fields()), BAD_CONFIG
            )
        stop_with(f"{error}; see --help", USAGE)
    except (AttributeError, KeyError) as error:
        for argument in argv[1:]:
            field = argument.lstrip("-").split("=")[0].removeprefix("config.")
            if argument.startswith("--config.") and field not in _known_fields():
                stop_with(_misspelt(field, _known_fields()), BAD_CONFIG)
        stop_with(f"bad config: {error}", BAD_CONFIG)
    except flags.Error as error:
        text = str(error).strip()
        if "Error whilst parsing config file" in text:  # the traceback of the file follows
            stop_with(f"--config: {text.splitlines()[-1].partition(': ')[2]}", BAD_CONFIG)
        if missing := re.search(r"Flag (--\w+) must have a value other than None", text):
            stop_with(f"{missing[1]} is missing; see --help", USAGE)
        stop_with(text.replace("flag --", ""), BAD_CONFIG if "config." in text else USAGE)
    except (ValueError, TypeError) as error:
        stop_with(f"bad config: {error}", BAD_CONFIG)
    raise AssertionError("unreachable")


def _show_help() -> NoReturn:
    """Prints the verb's docstring and the flags that modules of ssl_jax define."""
    for module, defined in FLAGS.flags_by_module_dict().items():
        if module.startswith("ssl_jax."):
            for flag in defined:
                FLAGS.register_key_flag_for_module(sys.argv[0], flag)
    app.usage(shorthelp=True, writeto_stdout=True)
    sys.exit(0)


def _with_config_paths(argv: list[str]) -> list[str]:
    """Replaces names of shipped configs by paths. Runs record sys.argv, which keeps the names."""
    words = list(argv)
    for i, word in enumerate(words):
        flag, equals, value = word.partition("=")
        if flag not in ("--config", "-config"):
            continue
        if equals:
            words[i] = f"{flag}={config_path(value)}"
        elif i + 1 < len(words):
            words[i + 1] = config_path(words[i + 1])
    return words


def config_path(value: str) -> str:
    """Returns the value of --config with the name of a shipped config replaced by its path.

    Args:
      value: "simclr:digits", or the path of a file, which is returned unchanged.

    Raises:
      Fault: no shipped config has this name.
    """
    name, colon, variant = value.partition(":")
    if name.endswith(".py") or os.sep in name:
        return value
    names = configs.names()
    if name not in names:
        hint = configuration.nearest(name, names)
        message = f"--config={value}: no config is named {name!r}; {hint}"
        raise Fault(f"{message}\n  a file is given as --config=path/to/file.py:variant", BAD_CONFIG)
    return f"{configs.FOLDER / name}.py{colon}{variant}"


def _known_fields() -> list[str]:
    config = FLAGS["config"].value if "config" in FLAGS else None
    return list(configuration.flatten(config or configuration.default_config()))


def _misspelt(field: str, known: list[str]) -> str:
    return f"{field}: unknown config field; {configuration.nearest(field, known)}"


def config(*, trusted: bool = True) -> ConfigDict:
    """Returns the config that the command line gives.

    Args:
      trusted: the user wrote the command line, which allows the modules that the config names.

    Raises:
      Fault: the file is missing, the config has problems, all of which the message names, or it
        names a module that is not allowed.
    """
    value = FLAGS.config
    try:
        dict(value)  # ml_collections reports a missing file only when the config is read
    except OSError as error:
        flag: Any = FLAGS["config"]
        message = f"--config: there is no file {flag.config_filename}"
        name = pathlib.Path(flag.config_filename).stem
        if name in configs.names():
            message += f"; the shipped config is --config={name}:VARIANT, without a path"
        raise Fault(message, BAD_CONFIG) from error
    check = configuration.allow_modules if trusted else configuration.check_modules
    check(value)
    if problems := configuration.problems(value):
        raise Fault("bad config:\n  " + "\n  ".join(problems), BAD_CONFIG)
    return value
