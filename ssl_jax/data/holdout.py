"""Divides the examples of one split into a part for training and a part for evaluation."""

import hashlib
from collections.abc import Sequence

import numpy as np

from ssl_jax.data.source import Source, subset
from ssl_jax.errors import BAD_DATA, Fault


def training_part(source: Source, share: float) -> Source:
    """Returns the examples that are not held out; see `held_out_rows`."""
    return subset(source, np.setdiff1d(np.arange(source.size), _held_out(source, share)))


def held_out_part(source: Source, share: float) -> Source:
    """Returns the examples that are held out; see `held_out_rows`."""
    return subset(source, _held_out(source, share))


def held_out_size(source: Source, share: float) -> int:
    """Returns the number of examples that are held out; 0 if `share` is 0."""
    return len(_held_out(source, share)) if share else 0


def _held_out(source: Source, share: float) -> np.ndarray:
    if source.group is None:
        return held_out_rows(source.size, share, source.name)
    groups = [source.group(index) for index in range(source.size)]
    return held_out_rows(source.size, share, source.name, groups, source.group_noun)


def training_rows(size: int, share: float, name: str) -> np.ndarray:
    """Returns the numbers of the examples that are not held out; all if `share` is 0.

    Sources without groups make their facts from these examples alone. The arguments are those of
    `held_out_rows`.
    """
    held_out = held_out_rows(size, share, name) if share else np.arange(0)
    return np.setdiff1d(np.arange(size), held_out)


def held_out_rows(
    size: int,
    share: float,
    name: str,
    groups: Sequence[int] | None = None,
    noun: str = "example",
) -> np.ndarray:
    """Returns the numbers of the examples that are held out for evaluation.

    The examples are divided into stretches of 1 / share neighbours, and a hash of the stretch's
    number chooses one example of each. The choice depends only on size and share. Neighbours in a
    folder belong to one class, so classes are held out in proportion: a class of at least 2 / share
    images always has one.

    With groups, whole groups are chosen in this way: no group is in both parts.

    Args:
      size: number of examples of the whole split.
      share: fraction of the examples, or of the groups, in (0, 1); at least one is held out.
      name: name of the source, for the message.
      groups: group of each example, in the order of the examples; None: each is its own group.
      noun: word for a group, for the message.

    Returns:
      int64, sorted; without groups, held_out_count(size, share) numbers.

    Raises:
      Fault: no example would be left for training.
    """
    if groups is not None:
        _, number = np.unique(np.asarray(groups), return_inverse=True)
        chosen = held_out_rows(int(number.max(initial=-1)) + 1, share, name, noun=noun)
        return np.flatnonzero(np.isin(number, chosen))
    count = held_out_count(size, share)
    if count >= size:
        raise Fault(
            f"data.holdout={share:g} leaves no {noun} of the {size} in {name} for training. Lower "
            "it, or add data.",
            BAD_DATA,
        )
    edges = np.arange(count + 1) * size // count
    return edges[:-1] + [_hash(i) for i in range(count)] % np.diff(edges)


def held_out_count(size: int, share: float) -> int:
    """Returns how many of `size` examples or groups are held out; 0 if `share` is 0."""
    return max(1, round(share * size)) if share else 0


def _hash(number: int) -> int:
    return int.from_bytes(hashlib.sha256(b"%d" % number).digest()[:7], "little")
