"""The Huffman tree against a search of all trees."""

import functools

import numpy as np
import pytest

from ssl_jax.models import huffman


def best_cost(counts):
    """Smallest sum of count * length over all binary trees, by trying every pair to merge."""

    @functools.cache
    def cost(weights):
        if len(weights) == 1:
            return 0
        best = None
        for i in range(len(weights)):
            for j in range(i):
                rest = [w for k, w in enumerate(weights) if k not in (i, j)]
                merged = weights[i] + weights[j]
                total = merged + cost(tuple(sorted([*rest, merged])))
                best = total if best is None else min(best, total)
        return best

    return cost(tuple(sorted(counts)))


@pytest.mark.parametrize("seed", range(6))
def test_tree_is_optimal(seed):
    rng = np.random.default_rng(seed)
    counts = np.sort(rng.integers(1, 12, rng.integers(2, 7)))[::-1]
    paths = huffman.paths(counts)
    lengths = (paths >= 0).sum(1)
    assert (counts * lengths).sum() == best_cost(counts.tolist())
    assert sum(2.0**-length for length in lengths) == 1  # Kraft: a full binary tree


def test_paths_tell_all_words_apart_and_share_their_start():
    counts = np.array([50, 30, 10, 5, 3, 1, 1])
    paths = huffman.paths(counts)
    nodes, bits = paths >> 1, paths & 1
    assert (nodes[:, 0] == len(counts) - 2).all()  # the root
    assert len({tuple(path) for path in paths.tolist()}) == len(counts)
    seen = {}
    for word in range(len(counts)):
        walked = ()
        for node, bit in zip(nodes[word], bits[word], strict=True):
            if node < 0:
                break
            assert seen.setdefault(int(node), walked) == walked  # a node has one way from the root
            walked = (*walked, int(bit))
    assert len(seen) == len(counts) - 1
    assert huffman.paths(np.array([3, 2])).tolist() in ([[0], [1]], [[1], [0]])


def test_equal_counts_make_a_balanced_tree():
    assert set((huffman.paths(np.full(64, 7)) >= 0).sum(1)) == {6}
