"""Standard output and error that keep working when nobody can read them any more."""

import contextlib
import faulthandler
import os
import re
import signal
import sys
from typing import Any, TextIO

# Control characters, lone surrogates and marks that change the direction of text. Names of files
# and hosts may hold them, and a terminal would execute them.
CONTROLS = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]"
)


def escape_controls(text: str) -> str:
    """Replaces control characters by visible escapes such as `\\x1b`; keeps tabs and line ends."""
    return CONTROLS.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


class ResilientStream:
    """A wrapper around a standard stream that drops text instead of failing.

    Writes fail when a pager or terminal is closed or when the disk of a log is full. Training must
    not stop for that, because metrics.jsonl holds the same numbers. The first failure is reported
    on standard error. Control characters are escaped, so that no name can command the terminal.
    """

    def __init__(self, stream: Any):
        self._stream = stream
        self._failed = False

    def write(self, text: str) -> int:
        """Writes the text, or drops it if the stream fails; returns its length."""
        with self._ignoring_errors():
            self._stream.write(escape_controls(text))
        return len(text)

    def flush(self) -> None:
        """Flushes the buffer, or leaves it if the stream fails."""
        with self._ignoring_errors():
            self._stream.flush()

    @contextlib.contextmanager
    def _ignoring_errors(self) -> Any:
        try:
            yield
        except OSError as error:
            if not self._failed:
                self._failed = True
                print_error(
                    f"cannot write to {self._stream.name}: {error.strerror}; continuing without it"
                )

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def make_streams_resilient() -> None:
    """Replaces sys.stdout and sys.stderr by `ResilientStream`s."""
    for name in ("stdout", "stderr"):
        if stream := getattr(sys, name):  # None if the stream was closed at start
            setattr(sys, name, ResilientStream(stream))


def write_stacks_on_signal(file: TextIO | None = None) -> None:
    """Makes SIGUSR1 write the stack traces of all threads; the process continues.

    Args:
      file: where the traces go; standard error by default.
    """
    with contextlib.suppress(AttributeError):  # Windows has no SIGUSR1
        faulthandler.register(signal.SIGUSR1, file=file or 2, all_threads=True)


def print_error(message: str) -> None:
    """Writes one line to standard error; ignores failures. Safe in a signal handler.

    Does not use print(): a handler may run in the middle of another print.
    """
    with contextlib.suppress(OSError):
        os.write(2, f"ssl_jax: {escape_controls(message)}\n".encode())
