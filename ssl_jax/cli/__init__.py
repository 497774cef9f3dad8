"""The command line of every verb: common flags, shipped configs, one-line errors, exit codes.

`cli.run` is the entry point of every verb. It reports a mistake in one message and exits with the
documented code (`ssl_jax.errors`), in under two seconds and before JAX or TensorFlow is imported.
"""

import os
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn, cast

from absl import app, flags
from ml_collections import ConfigDict, config_flags

from ssl_jax import config as configuration
from ssl_jax.cli import help_text, log_format, mistakes
from ssl_jax.cli.config_file import SAVED, config_path, load
from ssl_jax.errors import BAD_CONFIG, INTERRUPTED, OUT_OF_MEMORY, USAGE, Fault, exit_code
from ssl_jax.jobs.stop import Stop
from ssl_jax.jobs.streams import make_streams_resilient, write_stacks_on_signal

FLAGS = flags.FLAGS
PATHS = ("workdir", "pretrained")  # an empty path would mean the current folder


def define_config() -> None:
    """Defines --config=NAME[:VARIANT] or FILE[:VARIANT], and overrides --config.FIELD=VALUE."""
    config_flags.DEFINE_config_file(
        "config",
        None,
        "Shipped config such as simclr:digits, path/to/file.py:variant, or config.json of a run.",
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
    """Defines --NAME.FIELD=VALUE for one section of the config; `data` has those of any source."""
    every = {"data": configuration.every_data_field}
    section = every[name]() if name in every else configuration.default_config()[name]
    _define(name, section, prefix=f"{name}.")


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
            stop_with(mistakes.misspelt(field, known), BAD_CONFIG)
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

    # TensorFlow reads this variable when it is imported. Its oneDNN kernels round differently on
    # different machines, so a run would depend on the machine that augmented its images.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    make_streams_resilient()
    write_stacks_on_signal()
    log_format.quieten_libraries()
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
    """Parses the flags, and turns the tracebacks of ml_collections into one message."""
    if "--helpfull" in argv:
        return app.parse_flags_with_usage(argv)
    try:
        words = _with_config_paths(argv)
        if text := help_text.requested(words):
            print(text)
            sys.exit(0)
        try:
            rest = FLAGS(words, known_only=False)
        except Exception as error:  # of absl, of ml_collections or of the config file
            mistakes.explain(error, words)
        for name in PATHS:
            if name in FLAGS and FLAGS[name].present and not FLAGS[name].value:
                raise Fault(f"--{name}= is empty: pass the path of a folder or file", USAGE)
        return rest
    except Fault as fault:
        stop_with(str(fault), fault.code)


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


def config(*, trusted: bool = True) -> ConfigDict:
    """Returns the config that the command line gives.

    Args:
      trusted: the user wrote the command line, which allows the modules that the config names.

    Raises:
      Fault: the file is missing, the config has problems, all of which the message names, or it
        names a module that is not allowed.
    """
    value, flag = FLAGS.config, cast(Any, FLAGS["config"])
    try:
        dict(value)  # ml_collections reports a missing file only when the config is read
    except OSError:
        value = load(flag.config_filename)
    # The config.json of a run may come from anybody. Without a file, config_filename is no text.
    trusted = trusted and not str(flag.config_filename).startswith(f"{SAVED}:")
    check = configuration.allow_modules if trusted else configuration.check_modules
    check(value)
    if problems := configuration.problems(value):
        raise Fault("bad config:\n  " + "\n  ".join(problems), BAD_CONFIG)
    return configuration.with_defaults(value)
