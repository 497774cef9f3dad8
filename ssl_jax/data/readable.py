"""Finds unreadable examples before training, by loading every example of a source."""

import concurrent.futures
from collections.abc import Iterator

from ssl_jax.data.source import Source
from ssl_jax.jobs.cores import usable_cores
from ssl_jax.jobs.countdown import track

_AHEAD = 64  # examples in work per core


def unreadable(source: Source, what: str) -> dict[int, str]:
    """Loads every example once, on all usable cores, and prints the progress.

    Args:
      source: the examples.
      what: name of the examples for lines such as "train: 40 of 196 examples, 0:00:31 left".

    Returns:
      {index: reason} of the examples that cannot be loaded, in the order of the indices.
    """
    reasons = track(_reasons(source), source.size, f"{what}: {{}} examples")
    return {index: reason for index, reason in enumerate(reasons) if reason}


def _reasons(source: Source) -> Iterator[str]:
    """Yields `_reason` of every example in order, and loads at most a block ahead."""
    cores = usable_cores()
    with concurrent.futures.ThreadPoolExecutor(cores) as pool:
        for first in range(0, source.size, cores * _AHEAD):
            block = range(first, min(first + cores * _AHEAD, source.size))
            yield from pool.map(lambda index: _reason(source, index), block)


def _reason(source: Source, index: int) -> str:
    """Returns why an example cannot be loaded; "" if it can."""
    try:
        source.load(index)
    except MemoryError:
        raise
    except Exception as error:  # also those of a source outside the package
        return str(error) or type(error).__name__
    return ""
