"""Divides the rows of a data set over the devices of a sharding."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding


def devices(sharding: NamedSharding | None) -> int:
    """Returns the number of devices that share the rows; 1 without a sharding."""
    return 1 if sharding is None else sharding.num_devices


def shard(x: np.ndarray, sharding: NamedSharding | None, count: int = 0) -> jax.Array:
    """Returns an array [n, ...] on the devices, padded with rows of zeros to equal shares.

    Args:
      x: the array, equal in every process.
      sharding: sharding of the first axis; None leaves the placement to JAX.
      count: rows of the result, a multiple of the devices; 0 for the smallest multiple.
    """
    share = devices(sharding)
    missing = (count or -(-len(x) // share) * share) - len(x)
    padded = np.pad(x, ((0, missing), *[(0, 0)] * (x.ndim - 1))) if missing else np.asarray(x)
    if sharding is None:
        return jnp.asarray(padded)
    return jax.make_array_from_callback(padded.shape, sharding, lambda index: padded[index])


def gather(x: jax.Array) -> np.ndarray:
    """Returns the whole array in every process."""
    if x.is_fully_addressable or x.is_fully_replicated:
        return np.asarray(x)
    return np.asarray(multihost_utils.process_allgather(x, tiled=True))
