"""Recall of retrieval between two sets of embeddings, block by block."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from ssl_jax.evals import rows

BLOCK_ROWS = 4096  # candidates per block, and queries per block on a device: 64 MiB of similarities
TOLERANCE = 1e-6  # similarities that differ by less are equal: a collapse must not look good
_PADDED_QUERY, _PADDED_CANDIDATE = -1, -2  # groups


def ranks(
    queries: np.ndarray,
    groups: np.ndarray,
    candidates: np.ndarray,
    candidate_groups: np.ndarray,
    *,
    sharding: NamedSharding | None = None,
) -> np.ndarray:
    """Returns how many wrong candidates are at least as close to a query as the best right one.

    A query is found among the first k candidates if its rank is below k. Queries are divided over
    the devices, and candidates pass in blocks: the similarities of all pairs are never held at
    once.

    Args:
      queries: float [m, d], unit length.
      groups: int [m], at least 0; the candidates of the same group are right.
      candidates: float [n, d], unit length.
      candidate_groups: int [n], at least 0.
      sharding: sharding of the queries; None for one device.

    Returns:
      int [m]; n for a query without a right candidate.
    """
    devices = rows.devices(sharding)
    q = devices * min(BLOCK_ROWS, -(-len(queries) // devices))
    r = min(BLOCK_ROWS, len(candidates))
    blocks = [
        _padded(candidates[s : s + r], candidate_groups[s : s + r], r, _PADDED_CANDIDATE)
        for s in range(0, len(candidates), r)
    ]
    found = []
    for start in range(0, len(queries), q):
        rows_and_groups = _padded(queries[start : start + q], groups[start : start + q], q,
                                  _PADDED_QUERY)  # fmt: skip
        block = tuple(rows.shard(x, sharding, q) for x in rows_and_groups)
        best = rows.shard(np.full(q, -np.inf, np.float32), sharding)
        count = rows.shard(np.zeros(q, np.int32), sharding)
        for candidate_block in blocks:
            best = _best(best, *block, *candidate_block)
        for candidate_block in blocks:
            count = _count(count, best, *block, *candidate_block)
        missing = rows.gather(best) == -np.inf
        found.append(np.where(missing, len(candidates), rows.gather(count)))
    return np.concatenate(found)[: len(queries)]


def recall(ranks: np.ndarray, ks: Sequence[int]) -> list[float]:
    """Returns for each k the fraction of queries with a right candidate among the first k."""
    return [float(np.mean(ranks < k)) for k in ks]


def chance(right: np.ndarray, candidates: int, ks: Sequence[int]) -> list[float]:
    """Returns the expected recall of candidates in random order.

    Args:
      right: int [m], number of right candidates of each query, at least 1.
      candidates: number of candidates.
      ks: numbers of first candidates.
    """
    sizes, frequency = np.unique(right, return_counts=True)
    expected = []
    for k in ks:
        drawn = np.arange(min(k, candidates))
        left = np.maximum(candidates - sizes[:, None] - drawn, 0) / (candidates - drawn)
        expected.append(float(np.average(1 - left.prod(1), weights=frequency)))
    return expected


def _padded(x: np.ndarray, groups: np.ndarray, count: int, group: int) -> tuple[Any, Any]:
    missing = count - len(x)
    return (
        np.pad(np.asarray(x, np.float32), ((0, missing), (0, 0))),
        np.pad(np.asarray(groups, np.int32), (0, missing), constant_values=group),
    )


def _similarity(queries: jax.Array, candidates: jax.Array) -> jax.Array:
    return jnp.dot(queries, candidates.T, precision=jax.lax.Precision.HIGHEST)


@jax.jit
def _best(
    best: jax.Array, x: jax.Array, groups: jax.Array, y: jax.Array, candidate_groups: jax.Array
) -> jax.Array:
    """Returns the similarity of the best right candidate so far."""
    right = groups[:, None] == candidate_groups[None]
    return jnp.maximum(best, jnp.where(right, _similarity(x, y), -jnp.inf).max(1))


@partial(jax.jit, donate_argnums=0)
def _count(
    count: jax.Array,
    best: jax.Array,
    x: jax.Array,
    groups: jax.Array,
    y: jax.Array,
    candidate_groups: jax.Array,
) -> jax.Array:
    """Adds the wrong candidates of a block that are at least as close as the best right one."""
    wrong = (groups[:, None] != candidate_groups[None]) & (candidate_groups >= 0)[None]
    close = _similarity(x, y) >= best[:, None] - TOLERANCE
    return count + (wrong & close).sum(1, dtype=jnp.int32)
