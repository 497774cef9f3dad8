"""Finds unreadable examples before training, by loading every example of a source."""

import concurrent.futures
import datetime
import time
from collections.abc import Callable

from ssl_jax.data.source import Source
from ssl_jax.jobs.cores import usable_cores

_SECONDS = 5  # between two reports of progress
_AHEAD = 64  # examples in work per core


def unreadable(source: Source, report: Callable[[str], None]) -> dict[int, str]:
    """Loads every example once, on all usable cores.

    Args:
      source: the examples.
      report: takes a line about the progress, every few seconds.

    Returns:
      {index: reason} of the examples that cannot be loaded, in the order of the indices.
    """
    reasons: dict[int, str] = {}
    start = reported = time.monotonic()
    cores = usable_cores()
    with concurrent.futures.ThreadPoolExecutor(cores) as pool:
        for first in range(0, source.size, cores * _AHEAD):
            numbers = range(first, min(first + cores * _AHEAD, source.size))
            found = zip(numbers, pool.map(lambda i: _reason(source, i), numbers), strict=True)
            reasons |= {number: reason for number, reason in found if reason}
            now, done = time.monotonic(), numbers[-1] + 1
            if now - reported >= _SECONDS:
                reported = now
                seconds = (now - start) * (source.size - done) / done
                left = datetime.timedelta(seconds=round(seconds))
                report(f"{done:,} of {source.size:,}, {len(reasons):,} unreadable, {left} left")
    return reasons


def _reason(source: Source, index: int) -> str:
    """Returns why an example cannot be loaded; "" if it can."""
    try:
        source.load(index)
    except MemoryError:
        raise
    except Exception as error:  # also those of a source outside the package
        return str(error) or type(error).__name__
    return ""
