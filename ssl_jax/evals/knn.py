"""Weighted k-nearest-neighbour classification of frozen features."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

BLOCK_SCORES = 2**26  # similarities held at once: 256 MiB


def predict(
    bank: np.ndarray,
    labels: np.ndarray,
    queries: np.ndarray,
    *,
    k: int = 200,
    temperature: float = 0.1,
) -> np.ndarray:
    """Class of every query by the weighted vote of its k nearest neighbours in cosine similarity.

    A neighbour of similarity s votes with weight exp(s / temperature): Wu et al. 2018,
    arXiv 1805.01978, section 3.4; k 200 and temperature 0.07 there. Equal similarities go to the
    lower index of the bank, equal votes to the lower class, so the result is deterministic.

    Args:
      bank: float [n, f], features of the labelled examples.
      labels: int [n], any integers.
      queries: float [m, f].
      k: number of neighbours; the whole bank when it is smaller.
      temperature: of the weights.

    Returns:
      Labels, [m], of the dtype of `labels`.
    """
    if k < 1 or temperature <= 0:
        raise ValueError(f"k={k} and temperature={temperature} must be positive")
    classes, numbers = np.unique(labels, return_inverse=True)
    unit_bank, codes = _unit(jnp.asarray(bank, jnp.float32)), jnp.asarray(numbers, jnp.int32)
    block = int(np.clip(BLOCK_SCORES // len(bank), 8, len(queries)))
    predicted = []
    for start in range(0, len(queries), block):
        rows = queries[start : start + block]
        padded = np.pad(rows, ((0, block - len(rows)), (0, 0)))  # one shape, one compilation
        voted = _vote(
            unit_bank, codes, jnp.asarray(padded, jnp.float32), temperature,
            k=min(k, len(bank)), num_classes=len(classes),
        )  # fmt: skip
        predicted.append(voted[: len(rows)])
    return classes[np.concatenate(predicted)]


def accuracy(
    train_x: np.ndarray,
    train_y: np.ndarray,
    test_x: np.ndarray,
    test_y: np.ndarray,
    *,
    k: int = 200,
    temperature: float = 0.1,
) -> float:
    """Fraction of test examples whose class `predict` finds; a class unseen in train is missed."""
    predicted = predict(train_x, train_y, test_x, k=k, temperature=temperature)
    return float(np.mean(predicted == test_y))


def _unit(x: jax.Array) -> jax.Array:
    return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


@partial(jax.jit, static_argnames=("k", "num_classes"))
def _vote(
    unit_bank: jax.Array,
    codes: jax.Array,
    queries: jax.Array,
    temperature: jax.Array,
    *,
    k: int,
    num_classes: int,
) -> jax.Array:
    similarity = jnp.dot(_unit(queries), unit_bank.T, precision=jax.lax.Precision.HIGHEST)
    top, index = jax.lax.top_k(similarity, k)
    # Relative to the nearest neighbour: exp cannot overflow at a small temperature. By max, because
    # XLA merges the slice top[:, :1] into its top-k and then sorts the whole row: 20 times slower.
    weight = jnp.exp((top - jnp.max(top, axis=-1, keepdims=True)) / temperature)
    voted = codes[index]

    # A loop over neighbours, because a scatter-add on GPU has no fixed order and k one-hot rows
    # per query do not fit for many classes.
    def add(j: jax.Array, votes: jax.Array) -> jax.Array:
        return votes + weight[:, j, None] * jax.nn.one_hot(voted[:, j], num_classes)

    return jnp.argmax(jax.lax.fori_loop(0, k, add, jnp.zeros((len(top), num_classes))), axis=-1)
