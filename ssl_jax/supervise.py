"""Run a command again and again until it is done: after a preemption, a crash, or when stuck.

    python -m ssl_jax.supervise -- python -m ssl_jax.train --config=FILE:VARIANT --workdir=DIR

COMMAND is started again when it ends with 75 (stopped early, state saved), 81 (watchdog, or
processes that never came), 134 (aborted: another process is gone) or by a signal; every other code
is passed on. SIGTERM and SIGINT go to COMMAND, whose code then ends this one too; a third one kills
it. After 3 restarts without a new checkpoint it gives up. When what told of life in COMMAND's
--workdir is silent for --stall seconds, COMMAND is asked for its stacks, killed, and started again.
`WORKDIR/goodput.json` says where the time went. On several hosts each has its own supervisor.
Standard library only.
"""

import argparse
import os
import pathlib
import sys

from ssl_jax.errors import USAGE
from ssl_jax.jobs.process_number import rank
from ssl_jax.jobs.supervisor import Supervisor


def main(arguments: list[str]) -> int:
    """Parses the flags, runs the command, returns the exit code."""
    at = arguments.index("--") if "--" in arguments else len(arguments)
    own, command = arguments[:at], arguments[at + 1 :]
    parser = argparse.ArgumentParser(
        prog="supervise",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s [--stall=SECONDS] [--max_backoff=SECONDS] -- COMMAND...",
        exit_on_error=False,
    )
    parser.add_argument("--stall", type=float, default=1800.0, help="0: never (default 1800)")
    parser.add_argument("--max_backoff", type=float, default=60.0, help="default 60")
    try:
        flags, unknown = parser.parse_known_args(own)
    except argparse.ArgumentError as error:
        return _refuse(str(error))
    if unknown:
        return _refuse(f"unexpected argument {unknown[0]!r}; COMMAND stands behind --")
    if not command:
        return _refuse("which command? It stands behind --; see --help")
    if flags.stall < 0 or flags.max_backoff < 0:
        return _refuse("--stall and --max_backoff are seconds, 0 or more")
    supervisor = Supervisor(
        command,
        workdir=_workdir(command),
        process=rank(os.environ, option(command, "process")),
        stall=flags.stall,
        max_backoff=flags.max_backoff,
    )
    return supervisor.run()


def _refuse(message: str) -> int:
    print(f"supervise: {message}", file=sys.stderr, flush=True)
    return USAGE


def option(command: list[str], name: str) -> str | None:
    """The value of --NAME=VALUE or --NAME VALUE in a command, the last one; None without it."""
    found = None
    for argument, after in zip(command, [*command[1:], None], strict=True):
        if argument.startswith(f"--{name}="):
            found = argument.partition("=")[2]
        elif argument == f"--{name}":
            found = after
    return found


def _workdir(command: list[str]) -> pathlib.Path | None:
    value = option(command, "workdir")
    if value is None or "://" in value:
        return None
    return pathlib.Path(value).expanduser().absolute()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
