"""What every verb shares: flags, friendly errors, exit codes."""

import os
import re
import sys
import traceback
from collections.abc import Callable
from typing import Any

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from ssl_jax import config as configuration
from ssl_jax.errors import (
    BAD_CONFIG,
    INTERRUPTED,
    OUT_OF_MEMORY,
    USAGE,
    Fault,
    exit_code,
)
from ssl_jax.jobs.stop import Stop
from ssl_jax.jobs.streams import make_streams_resilient

FLAGS = flags.FLAGS


def define_config() -> None:
    """Declares --config=FILE[:VARIANT] and its overrides --config.a.b=value."""
    config_flags.DEFINE_config_file("config", None, "Config file, e.g. configs/simclr.py:digits.")
    flags.mark_flag_as_required("config")


def define_workdir() -> None:
    """Declares --workdir."""
    flags.DEFINE_string("workdir", None, "Folder of the run; the same command again resumes it.")
    flags.mark_flag_as_required("workdir")


def define_processes() -> None:
    """Declares --coordinator, --processes, --process and --start_timeout."""
    flags.DEFINE_string("coordinator", "", "HOST:PORT of process 0, of a job of several processes.")
    flags.DEFINE_integer("processes", 0, "How many processes the job has.", lower_bound=0)
    flags.DEFINE_integer("process", -1, "Which of them this is, from 0.", lower_bound=-1)
    flags.DEFINE_integer("start_timeout", 300, "Seconds to wait for all of them.", lower_bound=1)


def start(stop: Stop) -> None:
    """Joins the job's other processes, if there are any, and stops with them from then on.

    Before any other use of JAX. Called again, it does nothing.
    """
    from ssl_jax.jobs import bootstrap

    job = FLAGS.coordinator, FLAGS.processes, FLAGS.process
    bootstrap.connect(*job, timeout=FLAGS.start_timeout)
    stop.join_job()


def define_section(name: str) -> None:
    """Defines --NAME.FIELD=VALUE for one section of the config."""
    _define(name, configuration.default_config()[name], prefix=f"{name}.")


def define_overrides(config: ConfigDict) -> None:
    """Declares --config.FIELD=VALUE for the fields of `config`, without a file."""
    _define("config", config, prefix="")


def _define(name: str, config: ConfigDict, prefix: str) -> None:
    # ml_collections looks at the command line already here, and answers a misspelt field by a
    # traceback.
    known = list(configuration.flatten(config, prefix))
    for argument in sys.argv[1:]:
        field = prefix + argument.split("=")[0].removeprefix(f"--{name}.")
        if argument.startswith(f"--{name}.") and field not in known:
            _stop(_misspelt(field, known), BAD_CONFIG)
    config_flags.DEFINE_config_dict(name, config)


def run(main: Callable[[], None]) -> None:
    """Parses the flags and calls `main`; a Fault becomes one message and its exit code."""

    def guarded(argv: list[str]) -> None:
        if argv[1:]:
            _stop(f"unexpected argument {argv[1]!r}; flags are written --name=value", USAGE)
        try:
            main()
        except (Exception, KeyboardInterrupt) as error:
            if message := _message(error):
                _stop(message, exit_code(error))
            _leave(traceback.format_exc(), 1)
            raise

    # TensorFlow reads these when it is imported. Its oneDNN kernels round differently from machine
    # to machine, which would make a run depend on where its images were augmented.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    make_streams_resilient()
    logging.set_verbosity(logging.WARNING)
    app.run(guarded, flags_parser=_parse)


def _message(error: BaseException) -> str:
    """What the user is told; "" for what nobody foresaw, whose traceback is wanted."""
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


def _stop(message: str, code: int) -> None:
    _leave(f"ssl_jax: {message}", code)
    print(f"ssl_jax: {message}", file=sys.stderr, flush=True)
    sys.exit(code)


def _leave(text: str, code: int) -> None:
    """Prints, and ends one process of several, whose usual end would wait for the others."""
    if "jax" not in sys.modules:
        return
    from ssl_jax.jobs import bootstrap

    bootstrap.exit_now(text, code)


def _parse(argv: list[str]) -> list[str]:
    """Parses flags; what ml_collections reports by traceback becomes one line."""
    if "--help" in argv or "-h" in argv or "--helpfull" in argv:
        return app.parse_flags_with_usage(argv)
    try:
        return FLAGS(argv, known_only=False)
    except flags.UnrecognizedFlagError as error:
        if error.flagname.startswith("config."):
            if "config" not in FLAGS:
                _stop(f"--{error.flagname}: a run has its config; see --help", USAGE)
            _stop(_misspelt(error.flagname.removeprefix("config."), _known_fields()), BAD_CONFIG)
        _stop(f"{error}; see --help", USAGE)
    except (AttributeError, KeyError) as error:
        for argument in argv[1:]:
            field = argument.lstrip("-").split("=")[0].removeprefix("config.")
            if argument.startswith("--config.") and field not in _known_fields():
                _stop(_misspelt(field, _known_fields()), BAD_CONFIG)
        _stop(f"bad config: {error}", BAD_CONFIG)
    except flags.Error as error:
        text = str(error).strip()
        if "Error whilst parsing config file" in text:  # followed by the file's own traceback
            _stop(f"--config: {text.splitlines()[-1].partition(': ')[2]}", BAD_CONFIG)
        if missing := re.search(r"Flag (--\w+) must have a value other than None", text):
            _stop(f"{missing[1]} is missing; see --help", USAGE)
        _stop(text.replace("flag --", ""), BAD_CONFIG if "config." in text else USAGE)
    except (ValueError, TypeError) as error:
        _stop(f"bad config: {error}", BAD_CONFIG)
    raise AssertionError("unreachable")


def _known_fields() -> list[str]:
    config = FLAGS["config"].value if "config" in FLAGS else None
    return list(configuration.flatten(config or configuration.default_config()))


def _misspelt(field: str, known: list[str]) -> str:
    return f"{field}: unknown config field; {configuration.nearest(field, known)}"


def config() -> ConfigDict:
    """The config that the command line gave; raises Fault with every problem at once."""
    value = FLAGS.config
    try:
        dict(value)  # a file that is not there answers only when it is looked into
    except OSError as error:
        flag: Any = FLAGS["config"]
        message = f"--config: there is no file {flag.config_filename}"
        raise Fault(message, BAD_CONFIG) from error
    configuration.allow_modules(value)
    if found := configuration.problems(value):
        raise Fault("bad config:\n  " + "\n  ".join(found), BAD_CONFIG)
    return value
