"""Permutation sets: distinct, far apart, greedy, and the same in every process."""

import itertools
import time

import numpy as np
import pytest

from ssl_jax.methods._permutations import permutation_set


def distances(permutations):
    """Hamming distances of all pairs [pairs], by comparing every pair."""
    different = permutations[:, None] != permutations[None]
    return different.sum(-1)[np.triu_indices(len(permutations), 1)]


@pytest.mark.parametrize(("count", "mean"), [(100, 8.08), (701, 8.01), (2000, 8.00)])
def test_permutations_are_distinct_and_far_apart(count, mean):
    """The means are those of the paper's sets (table 5 for 100 and 1000); random pairs have 8."""
    start = time.perf_counter()
    chosen = permutation_set(count, 9)
    assert time.perf_counter() - start < 20  # 0.3 to 1.5 s on one idle core
    assert chosen.shape == (count, 9)
    np.testing.assert_array_equal(np.sort(chosen, axis=1), np.tile(np.arange(9), (count, 1)))
    assert len(np.unique(chosen, axis=0)) == count
    apart = distances(chosen)
    assert apart.mean() == pytest.approx(mean, abs=0.006)
    assert apart.min() >= 2


def test_first_permutations_share_no_position():
    """The largest distance, 9, is possible for a few permutations, and greedy choice finds some."""
    assert distances(permutation_set(5, 9)).min() == 9


@pytest.mark.parametrize(("count", "tiles"), [(24, 4), (60, 5)])
def test_each_permutation_has_the_largest_mean_distance_from_those_before(count, tiles):
    """Oracle: distances of all candidates, computed anew in each step."""
    chosen = permutation_set(count, tiles)
    every = np.array(list(itertools.permutations(range(tiles))))
    for n in range(1, count):
        mean = (every[:, None] != chosen[None, :n]).sum(-1).mean(1)
        is_left = ~(every[:, None] == chosen[None, :n]).all(-1).any(1)
        own = (chosen[n] != chosen[:n]).sum(-1).mean()
        assert own == mean[is_left].max()


def test_seed_decides():
    again = permutation_set.__wrapped__(50, 9)
    np.testing.assert_array_equal(again, permutation_set(50, 9))
    np.testing.assert_array_equal(again, permutation_set(100, 9)[:50])
    assert (permutation_set(50, 9, seed=1) != again).any()
    assert permutation_set(50, 9) is permutation_set(50, 9)
    with pytest.raises(ValueError, match="read-only"):
        permutation_set(50, 9)[0] = 0


@pytest.mark.parametrize("count", [1, 25])
def test_impossible_counts_raise(count):
    with pytest.raises(ValueError, match=f"between 2 and 24, got {count}"):
        permutation_set(count, 4)
