"""One number for a whole batch, by which two runs show that they were fed the same."""

import jax
import jax.numpy as jnp
import numpy as np

from ssl_jax.methods import Batch


def batch_hash(batch: Batch) -> jax.Array:
    """A 32-bit hash of a batch's indices, pixels and order, labels left out; uint32 [].

    A sum of integers, modulo 2^32, so that it is the same bit for bit however many devices hold the
    batch. Equal batches have equal hashes; unequal ones do once in four thousand million.
    """
    total = jnp.zeros((), jnp.uint32)
    for number, name in enumerate(sorted(batch.keys() - {"label"})):
        words = _words(batch[name])
        seed = np.uint32(0x9E3779B9 * (number + 1) & 0xFFFFFFFF)
        total += _mixed(words ^ _mixed(_positions(words.shape) + seed)).sum(dtype=jnp.uint32)
    return total


def _words(x: jax.Array) -> jax.Array:
    """The bits of every number, those of 64 as two."""
    bits = min(8 * x.dtype.itemsize, 32)
    return jax.lax.bitcast_convert_type(x, jnp.dtype(f"uint{bits}")).astype(jnp.uint32)


def _positions(shape: tuple[int, ...]) -> jax.Array:
    """Of every element its place in the flat array, modulo 2^32."""
    found = jnp.zeros(shape, jnp.uint32)
    for axis in range(len(shape)):
        stride = np.uint32(int(np.prod(shape[axis + 1 :], dtype=object)) & 0xFFFFFFFF)
        found += jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * stride
    return found


def _mixed(x: jax.Array) -> jax.Array:
    """The finaliser of MurmurHash3 (Appleby, public domain): every bit changes half of the bits."""
    x = (x ^ (x >> 16)) * np.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * np.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
