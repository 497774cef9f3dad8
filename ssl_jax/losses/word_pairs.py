"""Losses of word2vec: a word predicts, or is predicted by, the words around it.

A passage is cut into blocks of centre words. The words around a block, `window` on each side, are
the possible contexts of all its centres, so that all products are between small matrices. Losses
are sums over pairs, as each pair is one update in `word2vec.c`.

Shape letters: b passages, t words of a passage, n blocks, s centres of a block, c contexts of a
block (s + 2 window), k negatives of a block, l nodes of a path, d width.

Source: Mikolov et al. (arXiv 1301.3781 and 1310.4546), and `word2vec.c`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Blocks(NamedTuple):
    """Centres and contexts of blocks."""

    centre: jax.Array
    """int32 [b, n, s], numbers of words; -1 for none."""

    pairs: jax.Array
    """float [b, n, s, c]: 1 if the context is in the centre's window, else 0."""

    window: int
    """Largest window."""


def blocks(
    tokens: jax.Array, window: jax.Array, *, largest: int, size: int, dtype: jnp.dtype
) -> Blocks:
    """Cuts passages into blocks.

    Args:
      tokens: int32 [b, t]; -1 for no word.
      window: int32 [b, t], the window of each centre, from 1 to `largest`.
      largest: the largest window.
      size: centres of a block; the last one is filled up.
      dtype: dtype of `Blocks.pairs`.
    """
    centre = _centres(tokens, size, -1)
    context = contexts(tokens[..., None], size, largest, fill=-1)[..., 0]
    distance = np.abs(np.arange(size)[:, None] + largest - np.arange(size + 2 * largest))
    distance = distance[None, None]
    near = distance <= _centres(window, size, 0)[..., None]
    both = (centre[..., None] >= 0) & (context[:, :, None] >= 0)
    return Blocks(centre, (near & both & (distance > 0)).astype(dtype), largest)


def _centres(x: jax.Array, size: int, fill: int) -> jax.Array:
    missing = -x.shape[1] % size
    x = jnp.pad(x, ((0, 0), (0, missing)), constant_values=fill)
    return x.reshape(x.shape[0], -1, size)


def contexts(x: jax.Array, size: int, window: int, *, fill: int = 0) -> jax.Array:
    """Returns the contexts [b, n, c, d] of the blocks of x [b, t, d]."""
    count = -(-x.shape[1] // size)
    after = window + count * size - x.shape[1]
    x = jnp.pad(x, ((0, 0), (window, after), (0, 0)), constant_values=fill)
    width = size + 2 * window
    return jnp.stack([x[:, i * size : i * size + width] for i in range(count)], 1)


def centres(x: jax.Array, size: int) -> jax.Array:
    """Returns the centres [b, n, s, ...] of the blocks of x [b, t, ...]."""
    missing = -x.shape[1] % size
    x = jnp.pad(x, ((0, 0), (0, missing), *((0, 0),) * (x.ndim - 2)))
    return x.reshape(x.shape[0], -1, size, *x.shape[2:])


def context_sums(block: Blocks, x: jax.Array) -> jax.Array:
    """Returns the mean of each centre's contexts, [b, n, s, d], with the gradient of their sum.

    `word2vec.c` adds the whole gradient of the mean to every context.

    Args:
      block: the blocks.
      x: input vectors of the contexts, [b, n, c, d].
    """
    total = jnp.einsum("bnsc,bncd->bnsd", block.pairs, x)
    count = jnp.maximum(block.pairs.sum(-1, keepdims=True), 1)
    return total + jax.lax.stop_gradient(total / count - total)


def skip_gram_weights(block: Blocks, negative: jax.Array, share: float) -> jax.Array:
    """Returns the weight [b, n, c, k] of each negative for each context.

    A context has `share` of every negative for each of its pairs, unless the negative is the
    centre.

    Args:
      block: the blocks.
      negative: int32 [b, n, k], words that the pairs of a block share as negatives.
      share: negatives of a pair, divided by k.
    """
    other = (block.centre[..., None] != negative[:, :, None]).astype(block.pairs.dtype)
    return share * jnp.einsum("bnsc,bnsk->bnck", block.pairs, other)


def bag_weights(block: Blocks, negative: jax.Array, share: float) -> jax.Array:
    """Returns the weight [b, n, s, k] of each negative for the mean context of each centre."""
    other = block.centre[..., None] != negative[:, :, None]
    return share * (other & has_context(block)[..., None]).astype(block.pairs.dtype)


def has_context(block: Blocks) -> jax.Array:
    """Tells which centres have a context, bool [b, n, s]."""
    return block.pairs.max(-1) > 0


def negative_loss(x: jax.Array, weights: jax.Array, negative: jax.Array) -> jax.Array:
    """Returns the loss of negatives, [].

    Args:
      x: input vectors [b, n, r, d].
      weights: [b, n, r, k].
      negative: output vectors [b, n, k, d].
    """
    logits = jnp.einsum("bnrd,bnkd->bnrk", x, negative)
    return (weights * jax.nn.softplus(logits)).sum()


def skip_gram_loss(block: Blocks, x: jax.Array, y: jax.Array) -> jax.Array:
    """Returns the loss of the pairs themselves, [].

    Args:
      block: the blocks.
      x: input vectors of the contexts, [b, n, c, d].
      y: output vectors of the centres, [b, n, s, d].
    """
    logits = jnp.einsum("bnsd,bncd->bnsc", y, x)
    return (block.pairs * jax.nn.softplus(-logits)).sum()


def bag_loss(block: Blocks, bag: jax.Array, y: jax.Array) -> jax.Array:
    """Returns the loss of centres given their mean contexts, both [b, n, s, d]."""
    logits = jnp.einsum("bnsd,bnsd->bns", bag, y)
    return (has_context(block) * jax.nn.softplus(-logits)).sum()


def path_signs(path: jax.Array, dtype: jnp.dtype) -> tuple[jax.Array, jax.Array]:
    """Returns (1 for branch 0 and -1 for branch 1, whether there is a node) of paths [...]."""
    return (1 - 2 * (path & 1)).astype(dtype), (path >= 0).astype(dtype)


def skip_gram_path_loss(block: Blocks, x: jax.Array, nodes: jax.Array, path: jax.Array):
    """Returns the loss of all branches on the centres' paths, for each context, [].

    Args:
      block: the blocks.
      x: input vectors of the contexts, [b, n, c, d].
      nodes: vectors of the nodes on the centres' paths, [b, n, s, l, d].
      path: the paths, int32 [b, n, s, l].
    """
    sign, is_node = path_signs(path, x.dtype)
    logits = jnp.einsum("bnsld,bncd->bnslc", nodes, x)
    losses = jax.nn.softplus(-sign[..., None] * logits)
    return (is_node[..., None] * block.pairs[:, :, :, None] * losses).sum()


def bag_path_loss(block: Blocks, bag: jax.Array, nodes: jax.Array, path: jax.Array) -> jax.Array:
    """Returns the loss of all branches on the centres' paths, given the mean contexts, []."""
    sign, is_node = path_signs(path, bag.dtype)
    logits = jnp.einsum("bnsld,bnsd->bnsl", nodes, bag)
    weight = is_node * has_context(block)[..., None]
    return (weight * jax.nn.softplus(-sign * logits)).sum()


@jax.custom_vjp
def with_scaled_gradient(x: jax.Array, scale: jax.Array) -> jax.Array:
    """Returns x [..., d] unchanged; its gradient is multiplied by scale [...]."""
    del scale
    return x


def _forward(x: jax.Array, scale: jax.Array) -> tuple[jax.Array, jax.Array]:
    return x, scale


def _backward(scale: jax.Array, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    return gradient * scale[..., None], jnp.zeros_like(scale)


with_scaled_gradient.defvjp(_forward, _backward)
