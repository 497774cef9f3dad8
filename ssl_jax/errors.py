"""The exception for failures that users can fix, words of messages, and all exit codes.

Any module may import this one. A `Fault` raised anywhere, for example in the data pipeline, ends
the command with one clear message and the documented exit code, without a traceback. The codes
follow the style of sysexits.h.
"""

import contextlib
from collections.abc import Iterator

USAGE = 64
BAD_DATA = 65
MISSING_INPUT = 66
CANNOT_CREATE = 73
IO_ERROR = 74
STOPPED_EARLY = 75  # state saved: run the same command again
BAD_CHECKPOINT = 76
BAD_CONFIG = 78
NUMERIC = 80
WATCHDOG = 81  # no step for too long (stacks in the workdir), or processes that never connected
OUT_OF_MEMORY = 82
REPLICATED_WORK = 83  # a plan found work that every device repeats
INTERRUPTED = 130  # Ctrl-C, state saved


class Fault(Exception):
    """A failure that the user can fix.

    Args:
      message: what happened, where (path, step), and what to do.
      code: exit code, one of the constants of this module.
    """

    def __init__(self, message: str, code: int):
        super().__init__(message)
        self.code = code


class Faults:
    """Collects the faults of independent checks, so that one message reports all of them."""

    def __init__(self) -> None:
        self.found: list[Fault] = []

    @contextlib.contextmanager
    def collect(self) -> Iterator[None]:
        """A context that records a Fault and ends normally."""
        try:
            yield
        except Fault as fault:
            self.found.append(fault)

    def check(self) -> None:
        """Raises one Fault with all messages and the first fault's code, if there are faults."""
        if len(messages := list(dict.fromkeys(map(str, self.found)))) > 1:
            raise Fault("\n  ".join([f"{len(messages)} problems:", *messages]), self.found[0].code)
        if self.found:
            raise self.found[0]


def printable(name: str) -> str:
    """Returns a name of a file or class for a message.

    A name with control characters could imitate other messages or steer the terminal. It is
    returned in quotes, with these characters escaped.
    """
    return name if name.isprintable() else repr(name)


def count(number: int, one: str, several: str = "") -> str:
    """Returns a number with its noun: "1 step", "1,200 steps".

    Args:
      number: the number.
      one: noun in the singular.
      several: noun in the plural; `one` and "s" by default.
    """
    return f"{number:,} {one if number == 1 else several or one + 's'}"


def exit_code(error: BaseException) -> int:
    """Returns the exit code of a command that ends with `error`; 1 for an unexpected error."""
    if isinstance(error, Fault):
        return error.code
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, OSError):
        return IO_ERROR
    # XLA reports exhausted memory as a RuntimeError.
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
        return OUT_OF_MEMORY
    return 1
