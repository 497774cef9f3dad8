"""Huffman tree of a vocabulary, for hierarchical softmax."""

import heapq

import numpy as np


def paths(counts: np.ndarray) -> np.ndarray:
    """Returns the path of every word from the root of the Huffman tree of the counts.

    The tree has V - 1 inner nodes; V - 2 is the root. Of two equal counts, words come before inner
    nodes, and lower numbers first, so the tree depends on the counts alone.

    Args:
      counts: int [V], at least two.

    Returns:
      int32 [V, l], l the length of the longest path: 2 * inner node + bit of the branch that leaves
      it, root first; -1 behind the end of a path.

    Source: `word2vec.c`, CreateBinaryTree; Huffman 1952.
    """
    size = len(counts)
    heap = [(int(count), node) for node, count in enumerate(counts)]
    heapq.heapify(heap)
    parent, bit = np.zeros(2 * size - 1, np.int64), np.zeros(2 * size - 1, np.int64)
    for node in range(size, 2 * size - 1):
        (low, first), (high, second) = heapq.heappop(heap), heapq.heappop(heap)
        parent[[first, second]], bit[second] = node, 1
        heapq.heappush(heap, (low + high, node))
    root = 2 * size - 2
    depth = np.zeros(2 * size - 1, np.int64)
    for node in range(root - 1, -1, -1):  # a parent has a higher number than its children
        depth[node] = depth[parent[node]] + 1
    found = np.full((size, int(depth[:size].max())), -1, np.int32)
    places = words = np.arange(size)
    while len(words):
        above = parent[places]
        found[words, depth[places] - 1] = 2 * (above - size) + bit[places]
        going = above != root
        places, words = above[going], words[going]
    return found
