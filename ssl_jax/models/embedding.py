"""A table of word vectors as an encoder: features are the mean of a passage's word vectors."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

TABLE = "table"  # name of the parameter


class Embedding(nn.Module):
    """Passages int32 [n, t] -> mean vectors float32 [n, width]; -1 is no word.

    Attributes:
      width: length of a word's vector.
      words: rows of the table. Only initialisation needs it.
      dtype: dtype of activations; the mean has at least float32.
    """

    width: int = 100
    words: int = 0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, tokens: jax.Array, train: bool) -> jax.Array:
        """Returns the mean vectors; 0 for a passage without words."""
        del train
        table: jax.Array
        if self.has_variable("params", TABLE):
            table = self.get_variable("params", TABLE)
        else:
            table = self.param(TABLE, initial_table, (self.words, self.width))
        return mean_vectors(table[jnp.maximum(tokens, 0)], tokens)


def initial_table(key: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """Returns numbers from the uniform distribution over ±0.5 / width, as `word2vec.c`."""
    return jax.random.uniform(key, shape, jnp.float32, -0.5, 0.5) / shape[1]


def mean_vectors(vectors: jax.Array, tokens: jax.Array) -> jax.Array:
    """Returns the mean over words, [n, d], of vectors [n, t, d]; 0 without words."""
    mask = (tokens >= 0).astype(vectors.dtype)
    count = jnp.maximum(mask.sum(1), 1)
    return jnp.einsum("nt,ntd->nd", mask, vectors) / count[:, None]
