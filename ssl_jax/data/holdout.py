"""Divides the examples of one split into a part for training and a part for evaluation."""

import hashlib

import numpy as np

from ssl_jax.data.source import Source, subset
from ssl_jax.errors import BAD_DATA, Fault


def training_part(source: Source, share: float) -> Source:
    """Returns the examples that are not held out; see `held_out_rows`."""
    held_out = held_out_rows(source, share)
    return subset(source, np.setdiff1d(np.arange(source.size), held_out))


def held_out_part(source: Source, share: float) -> Source:
    """Returns the examples that are held out; see `held_out_rows`."""
    return subset(source, held_out_rows(source, share))


def held_out_rows(source: Source, share: float) -> np.ndarray:
    """Returns the numbers of the examples that are held out for evaluation.

    The examples are divided into stretches of 1 / share neighbours, and a hash of the stretch's
    number chooses one example of each. The choice depends only on size and share. Neighbours in a
    folder belong to one class, so classes are held out in proportion: a class of at least 2 / share
    images always has one.

    If the source has groups, whole groups are chosen in this way: no group is in both parts.

    Args:
      source: the whole split.
      share: fraction of the examples, or of the groups, in (0, 1); at least one is held out.

    Returns:
      int64, sorted; without groups, held_out_count(size, share) numbers.

    Raises:
      Fault: no example would be left for training.
    """
    if source.group is None:
        return _chosen(source, source.size, share, "example")
    groups = np.array([source.group(index) for index in range(source.size)])
    _, number = np.unique(groups, return_inverse=True)
    chosen = _chosen(source, int(number.max(initial=-1)) + 1, share, source.group_noun)
    return np.flatnonzero(np.isin(number, chosen))


def _chosen(source: Source, size: int, share: float, noun: str) -> np.ndarray:
    """Returns the held-out ones of `size` examples or groups."""
    count = held_out_count(size, share)
    if count >= size:
        raise Fault(
            f"data.holdout={share:g} leaves no {noun} of the {size} in {source.name} for "
            "training. Lower it, or add data.",
            BAD_DATA,
        )
    edges = np.arange(count + 1) * size // count
    return edges[:-1] + [_hash(i) for i in range(count)] % np.diff(edges)


def held_out_count(size: int, share: float) -> int:
    """Returns how many of `size` examples or groups are held out; 0 if `share` is 0."""
    return max(1, round(share * size)) if share else 0


def _hash(number: int) -> int:
    return int.from_bytes(hashlib.sha256(b"%d" % number).digest()[:7], "little")
