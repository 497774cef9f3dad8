"""Progress of a long loop: how much is done, and the time left. Standard library only."""

import datetime
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

INTERVAL = 10.0  # seconds between two lines
T = TypeVar("T")


def track(
    items: Iterable[T],
    total: int,
    what: str,
    *,
    show: bool = True,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[T]:
    """Yields the items, and prints a line such as "features: 40 of 196 batches, 0:00:31 left".

    Short loops print nothing: the first line appears after INTERVAL seconds.

    Args:
      items: the items of the loop.
      total: number of items.
      what: words before and after "40 of 196", as in "features: {} batches".
      show: print; False in all processes of a job but one.
      clock: monotonic clock, in seconds.
    """
    start = last = clock()
    for done, item in enumerate(items):
        now = clock()
        if show and done and now - last >= INTERVAL:
            last = now
            left = datetime.timedelta(seconds=round((now - start) / done * (total - done)))
            print(f"{what.format(f'{done} of {total}')}, {left} left", flush=True)
        yield item
