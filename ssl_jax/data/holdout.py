"""Divides the examples of one split into a part for training and a part for evaluation."""

import hashlib

import numpy as np

from ssl_jax.data.source import Source, subset
from ssl_jax.errors import BAD_DATA, Fault


def training_part(source: Source, share: float) -> Source:
    """Returns the examples that are not held out; see `held_out_rows`."""
    return subset(source, training_rows(source.size, share, source.name))


def held_out_part(source: Source, share: float) -> Source:
    """Returns the examples that are held out; see `held_out_rows`."""
    return subset(source, held_out_rows(source.size, share, source.name))


def training_rows(size: int, share: float, name: str) -> np.ndarray:
    """Returns the numbers of the examples that are not held out; all if `share` is 0.

    Sources make their facts from these examples alone. The arguments are those of `held_out_rows`.
    """
    held_out = held_out_rows(size, share, name) if share else np.arange(0)
    return np.setdiff1d(np.arange(size), held_out)


def held_out_rows(size: int, share: float, name: str) -> np.ndarray:
    """Returns the numbers of the examples that are held out for evaluation.

    The examples are divided into stretches of 1 / share neighbours, and a hash of the stretch's
    number chooses one example of each. The choice depends only on size and share. Neighbours in a
    folder belong to one class, so classes are held out in proportion: a class of at least 2 / share
    images always has one.

    Args:
      size: number of examples of the whole split.
      share: fraction of the examples, in (0, 1); at least one example is held out.
      name: name of the source, for the message.

    Returns:
      int64 [held_out_count(size, share)], sorted.

    Raises:
      Fault: no example would be left for training.
    """
    count = held_out_count(size, share)
    if count >= size:
        raise Fault(
            f"data.holdout={share:g} leaves no example of the {size} in {name} for "
            "training. Lower it, or add data.",
            BAD_DATA,
        )
    edges = np.arange(count + 1) * size // count
    return edges[:-1] + [_hash(i) for i in range(count)] % np.diff(edges)


def held_out_count(size: int, share: float) -> int:
    """Returns the number of examples that are held out; 0 if `share` is 0."""
    return max(1, round(share * size)) if share else 0


def _hash(number: int) -> int:
    return int.from_bytes(hashlib.sha256(b"%d" % number).digest()[:7], "little")
