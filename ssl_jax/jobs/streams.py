"""Standard output and error that outlive whoever reads them."""

import contextlib
import os
import sys
from typing import Any


class Lasting:
    """A standard stream whose failure ends nothing.

    A pager that was left, a closed terminal, a log on a full disk: the training is worth more than
    its lines, which metrics.jsonl has as well. What cannot be written is dropped; the first time is
    told on standard error.
    """

    def __init__(self, stream: Any):
        self._stream = stream
        self._failed = False

    def write(self, text: str) -> int:
        """Writes, or drops, the text."""
        with self._surviving():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Hands over what is buffered, or leaves it for later."""
        with self._surviving():
            self._stream.flush()

    @contextlib.contextmanager
    def _surviving(self) -> Any:
        try:
            yield
        except OSError as error:
            if not self._failed:
                self._failed = True
                tell(f"cannot write to {self._stream.name}: {error.strerror}; going on without it")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def outlast_readers() -> None:
    """Makes standard output and error `Lasting`."""
    for name in ("stdout", "stderr"):
        if stream := getattr(sys, name):  # None where it was closed from the start
            setattr(sys, name, Lasting(stream))


def tell(message: str) -> None:
    """A line on standard error, if it can be written; also from a signal's handler.

    Not print: a handler may come here from within another print.
    """
    with contextlib.suppress(OSError):
        os.write(2, f"ssl_jax: {message}\n".encode())
