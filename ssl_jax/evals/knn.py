"""Weighted k-nearest-neighbour classification of frozen features."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from ssl_jax.evals import rows

BLOCK_SCORES = 2**26  # similarities per block on a device: 256 MiB
BLOCK_BANK = 2**28  # numbers of the bank per block on a device: 1 GiB
Nearest = tuple[jax.Array, jax.Array]  # similarities [q, k], descending, and class codes [q, k]


def predict(
    bank: np.ndarray,
    labels: np.ndarray,
    queries: np.ndarray,
    *,
    k: int = 200,
    temperature: float = 0.1,
    sharding: NamedSharding | None = None,
) -> np.ndarray:
    """Classifies queries by a weighted vote of their k nearest neighbours in cosine similarity.

    A neighbour of similarity s votes with weight exp(s / temperature). Equal similarities go to the
    lower index of the bank and equal votes to the lower class, so the result is deterministic.

    Queries are divided over the devices. The bank passes through every device in blocks, so that
    neither the bank nor the similarities need to fit in memory.

    Args:
      bank: float [n, f], features of the labelled examples.
      labels: int [n], any integers.
      queries: float [m, f].
      k: number of neighbours; the whole bank if it is smaller.
      temperature: temperature of the votes' weights.
      sharding: sharding of the queries; None for one device.

    Returns:
      [m], the predicted labels, in the dtype of `labels`.

    Raises:
      ValueError: k or temperature is not positive.

    Source: Wu et al. 2018 (arXiv 1805.01978), section 3.4, with k 200 and temperature 0.07.
    """
    if k < 1 or temperature <= 0:
        raise ValueError(f"k={k} and temperature={temperature} must be positive")
    classes, codes = np.unique(labels, return_inverse=True)
    n, m, k = len(bank), len(queries), min(k, len(bank))
    r = min(n, max(k, BLOCK_BANK // bank.shape[1]))
    devices = rows.devices(sharding)
    q = devices * int(np.clip(BLOCK_SCORES // r, 8, -(-m // devices)))
    starts = range(0, m, q)
    blocks = [rows.shard(_wide(queries[s : s + q]), sharding, q) for s in starts]
    empty = np.full((q, k), -np.inf, np.float32), np.zeros((q, k), np.int32)
    nearest: list[Nearest] = [
        tuple(rows.shard(x, sharding) for x in empty)  # type: ignore[misc]
        for _ in blocks
    ]
    for start in range(0, n, r):
        part = _wide(bank[start : start + r])
        missing = r - len(part)  # the last block is padded: one shape, one compilation
        unit = _unit(jnp.asarray(np.pad(part, ((0, missing), (0, 0)))))
        code = jnp.asarray(np.pad(codes[start : start + r], (0, missing)), jnp.int32)
        for i, block in enumerate(blocks):
            nearest[i] = _search(block, *nearest[i], unit, code, len(part), sharding=sharding)
    votes = [rows.gather(_vote(*pair, temperature, num_classes=len(classes))) for pair in nearest]
    return classes[np.concatenate(votes)[:m]]


def accuracy(
    train_x: np.ndarray,
    train_y: np.ndarray,
    test_x: np.ndarray,
    test_y: np.ndarray,
    *,
    k: int = 200,
    temperature: float = 0.1,
    sharding: NamedSharding | None = None,
) -> float:
    """Returns the fraction of test examples that `predict` classifies correctly.

    A class that train lacks counts as missed. Arguments are those of `predict`.
    """
    predicted = predict(train_x, train_y, test_x, k=k, temperature=temperature, sharding=sharding)
    return float(np.mean(predicted == test_y))


def _wide(x: np.ndarray) -> np.ndarray:
    return np.asarray(x, np.float32)


@jax.jit
def _unit(x: jax.Array) -> jax.Array:
    return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


@partial(jax.jit, static_argnames="sharding")
def _search(
    queries: jax.Array,
    top: jax.Array,
    top_codes: jax.Array,
    unit_bank: jax.Array,
    codes: jax.Array,
    valid: jax.Array | int,
    *,
    sharding: NamedSharding | None,
) -> Nearest:
    """Returns the nearest among the earlier results and the first `valid` rows of a bank block."""

    def search(queries, top, top_codes, unit_bank, codes, valid):
        similarity = jnp.dot(_unit(queries), unit_bank.T, precision=jax.lax.Precision.HIGHEST)
        similarity = jnp.where(jnp.arange(len(codes))[None] < valid, similarity, -jnp.inf)
        near, index = jax.lax.top_k(similarity, min(top.shape[1], len(codes)))
        # Earlier results come first: among equals, top_k takes the lower position.
        all_similarities = jnp.concatenate([top, near], axis=1)
        all_codes = jnp.concatenate([top_codes, codes[index]], axis=1)
        top, position = jax.lax.top_k(all_similarities, top.shape[1])
        return top, jnp.take_along_axis(all_codes, position, axis=1)

    if sharding is None:
        return search(queries, top, top_codes, unit_bank, codes, valid)
    # An explicit shard_map, because XLA gathers the similarities of all devices before its top-k.
    every, own = PartitionSpec(), sharding.spec
    sharded_search = jax.shard_map(
        search,
        mesh=sharding.mesh,
        in_specs=(own, own, own, every, every, every),
        out_specs=(own, own),
    )
    return sharded_search(queries, top, top_codes, unit_bank, codes, jnp.asarray(valid))


@partial(jax.jit, static_argnames="num_classes")
def _vote(
    top: jax.Array, codes: jax.Array, temperature: jax.Array | float, *, num_classes: int
) -> jax.Array:
    # Relative to the nearest neighbour, so that exp cannot overflow at a small temperature.
    weight = jnp.exp((top - top[:, :1]) / temperature)

    # A loop over neighbours: a scatter-add on GPU has no fixed order, and k one-hot rows per query
    # do not fit in memory for many classes.
    def add(j: jax.Array, votes: jax.Array) -> jax.Array:
        return votes + weight[:, j, None] * jax.nn.one_hot(codes[:, j], num_classes)

    start = jnp.zeros((len(top), num_classes))
    return jnp.argmax(jax.lax.fori_loop(0, top.shape[1], add, start), axis=-1)
