"""Hash of a whole batch, by which two runs can be checked for equal data."""

import jax
import jax.numpy as jnp
import numpy as np

from ssl_jax.methods import Batch


def batch_hash(batch: Batch) -> jax.Array:
    """Returns a 32-bit hash of all arrays of a batch except "label", and of their order; uint32 [].

    The hash is a sum of integers modulo 2^32. It is therefore the same to the bit on any number of
    devices. Equal batches have equal hashes; two unequal batches have equal hashes with a
    probability of 2^-32.
    """
    total = jnp.zeros((), jnp.uint32)
    for number, name in enumerate(sorted(batch.keys() - {"label"})):
        words = _words(batch[name])
        seed = np.uint32(0x9E3779B9 * (number + 1) & 0xFFFFFFFF)
        total += _mix(words ^ _mix(_positions(words.shape) + seed)).sum(dtype=jnp.uint32)
    return total


def _words(x: jax.Array) -> jax.Array:
    """Returns the bits of every number as uint32; a 64-bit number becomes two words."""
    bits = min(8 * x.dtype.itemsize, 32)
    return jax.lax.bitcast_convert_type(x, jnp.dtype(f"uint{bits}")).astype(jnp.uint32)


def _positions(shape: tuple[int, ...]) -> jax.Array:
    """Returns the position of every element in the flat array, modulo 2^32."""
    positions = jnp.zeros(shape, jnp.uint32)
    for axis in range(len(shape)):
        stride = np.uint32(int(np.prod(shape[axis + 1 :], dtype=object)) & 0xFFFFFFFF)
        positions += jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * stride
    return positions


def _mix(x: jax.Array) -> jax.Array:
    """Mixes bits by the finaliser of MurmurHash3 (Appleby): each bit changes half of the bits."""
    x = (x ^ (x >> 16)) * np.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * np.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
