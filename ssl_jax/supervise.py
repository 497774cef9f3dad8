"""Runs a command and restarts it after preemptions, crashes and hangs, until it is done.

    ssl-jax supervise -- ssl-jax train --config=FILE:VARIANT --workdir=DIR

Restarts COMMAND if it exits with 75 (stopped early, state saved), 81 (watchdog, or processes that
never connected) or 134 (aborted because another process is gone), or if a signal kills it. Passes
every other exit code on. Gives up after 3 restarts in a row without a new checkpoint.

Forwards SIGTERM and SIGINT to COMMAND and then exits with the exit code of COMMAND. A third signal
kills COMMAND. If the supervisor itself is killed, COMMAND gets SIGTERM (on Linux). SIGUSR1 is
forwarded, and COMMAND writes its stack traces.

Watches COMMAND's --workdir for signs of life. If they stop for --stall seconds, COMMAND writes its
stack traces and is killed and restarted. `WORKDIR/goodput.json` shows where the time went. On
several hosts, run one supervisor per host. Standard library only.
"""

import argparse
import os
import pathlib
import sys

from ssl_jax.errors import USAGE
from ssl_jax.jobs.process_number import process_number
from ssl_jax.jobs.supervisor import Supervisor


def main(arguments: list[str]) -> int:
    """Parses the flags, runs the command, returns the exit code."""
    at = arguments.index("--") if "--" in arguments else len(arguments)
    own, command = arguments[:at], arguments[at + 1 :]
    parser = argparse.ArgumentParser(
        prog="supervise",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="ssl-jax supervise [--stall=SECONDS] [--max_backoff=SECONDS] -- COMMAND...",
        exit_on_error=False,
    )
    parser.add_argument(
        "--stall",
        type=float,
        default=1800.0,
        help="seconds without a sign of life before a restart; 0: never (default 1800)",
    )
    parser.add_argument(
        "--max_backoff",
        type=float,
        default=60.0,
        help="longest wait before a restart, in seconds (default 60)",
    )
    try:
        flags, unknown = parser.parse_known_args(own)
    except argparse.ArgumentError as error:
        return _usage_error(str(error))
    if unknown:
        return _usage_error(f"unexpected argument {unknown[0]!r}: put COMMAND after --")
    if not command:
        return _usage_error("COMMAND is missing: put it after --; see --help")
    if flags.stall < 0 or flags.max_backoff < 0:
        return _usage_error("--stall and --max_backoff must be 0 or more seconds")
    supervisor = Supervisor(
        command,
        workdir=_workdir(command),
        process=process_number(os.environ, option(command, "process")),
        stall=flags.stall,
        max_backoff=flags.max_backoff,
    )
    return supervisor.run()


def _usage_error(message: str) -> int:
    print(f"supervise: {message}", file=sys.stderr, flush=True)
    return USAGE


def option(command: list[str], name: str) -> str | None:
    """Returns the last value of --NAME=VALUE or --NAME VALUE in a command; None without one."""
    value = None
    for argument, following in zip(command, [*command[1:], None], strict=True):
        if argument.startswith(f"--{name}="):
            value = argument.partition("=")[2]
        elif argument == f"--{name}":
            value = following
    return value


def _workdir(command: list[str]) -> pathlib.Path | None:
    value = option(command, "workdir")
    if value is None or "://" in value:
        return None
    return pathlib.Path(value).expanduser().absolute()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
