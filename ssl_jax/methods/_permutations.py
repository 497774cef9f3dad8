"""Permutations of tiles that are far apart from each other."""

import functools
import itertools
import math

import numpy as np


@functools.cache
def permutation_set(count: int, tiles: int, seed: int = 0) -> np.ndarray:
    """Chooses permutations with a large Hamming distance, one by one.

    The first permutation is random. Each further one has the largest mean Hamming distance from
    those chosen before, among all permutations that remain. Ties are broken at random.

    The sum of the Hamming distances between a permutation p and n chosen ones is n * tiles minus
    the number of matches, the sum over the chosen q and the positions i of [p_i = q_i]. Only this
    number is kept for each permutation. A new q changes it for the permutations that contain one of
    q's pairs (i, q_i), which are listed once.

    Args:
      count: number of permutations, from 2 to the factorial of `tiles`.
      tiles: number of positions, at most 9. All permutations are kept in memory.
      seed: seed of the first permutation and of the ties.

    Returns:
      int8 [count, tiles], read-only. Rows are distinct.

    Raises:
      ValueError: if there are too few permutations, or fewer than 2 are asked for.

    Source: Noroozi and Favaro (arXiv 1603.09246), algorithm 1 and section 4.2 ("average").
    """
    total = math.factorial(tiles)
    if not 2 <= count <= total:
        raise ValueError(f"permutations must be between 2 and {total}, got {count}")
    rng = np.random.Generator(np.random.PCG64(seed))
    every = np.array(list(itertools.permutations(range(tiles))), np.int8)[rng.permutation(total)]
    holders = [[np.flatnonzero(column == v) for v in range(tiles)] for column in every.T]
    matches = np.zeros(total, np.int32)
    chosen = []
    for _ in range(count):
        chosen.append(int(matches.argmin()))
        for position, value in enumerate(every[chosen[-1]]):
            matches[holders[position][value]] += 1
        matches[chosen[-1]] = np.iinfo(np.int32).max // 2
    result = every[chosen]
    result.flags.writeable = False
    return result
