"""Recall against a brute-force ranking."""

import itertools

import jax
import numpy as np
import pytest

from ssl_jax import parallel
from ssl_jax.evals import retrieval


def _unit(rng, *shape):
    x = rng.normal(size=shape)
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def _brute_force(queries, groups, candidates, candidate_groups):
    ranks = []
    for query, group in zip(queries, groups, strict=True):
        similarity = candidates.astype(np.float64) @ query.astype(np.float64)
        right = candidate_groups == group
        best = max(similarity[right], default=None)
        ranks.append(len(candidates) if best is None else (similarity[~right] >= best).sum())
    return ranks


@pytest.mark.parametrize("block", [7, 16, 4096])
@pytest.mark.parametrize("devices", [1, 8])
def test_ranks_equal_a_brute_force_ranking(devices, block, monkeypatch):
    monkeypatch.setattr(retrieval, "BLOCK_ROWS", block)
    rng = np.random.default_rng(0)
    queries, candidates = _unit(rng, 61, 8), _unit(rng, 45, 8)
    groups, candidate_groups = rng.integers(0, 20, 61), rng.integers(0, 18, 45)
    assert set(groups) - set(candidate_groups)  # some queries have no right candidate
    sharding = parallel.rows(parallel.make_mesh(jax.devices()[:devices])) if devices > 1 else None
    got = retrieval.ranks(queries, groups, candidates, candidate_groups, sharding=sharding)
    np.testing.assert_array_equal(got, _brute_force(queries, groups, candidates, candidate_groups))


def test_recall_counts_the_first_k():
    assert retrieval.recall(np.array([0, 0, 3, 9, 10]), (1, 5, 10)) == [0.4, 0.6, 0.8]


def test_a_collapse_finds_nothing():
    same = np.tile(_unit(np.random.default_rng(1), 8), (30, 1))
    ranks = retrieval.ranks(same, np.arange(30), same, np.arange(30))
    assert retrieval.recall(ranks, (1, 10)) == [0.0, 0.0]
    np.testing.assert_array_equal(ranks, 29)


def test_equal_embeddings_of_one_group_are_all_right():
    x = _unit(np.random.default_rng(2), 3, 8)
    pictures = x.repeat(4, axis=0)
    groups = np.arange(3).repeat(4)
    np.testing.assert_array_equal(retrieval.ranks(pictures, groups, x, np.arange(3)), 0)
    np.testing.assert_array_equal(retrieval.ranks(x, np.arange(3), pictures, groups), 0)


def test_chance_is_the_mean_over_all_orders():
    right = np.array([1, 2, 1])
    for k in (1, 2, 3, 9):
        hits = [
            np.mean([any(i < r for i in order[:k]) for order in itertools.permutations(range(4))])
            for r in right
        ]
        assert retrieval.chance(right, 4, (k,))[0] == pytest.approx(np.mean(hits))
