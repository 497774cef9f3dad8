"""Random keys of examples."""

import jax


def example_keys(key: jax.Array, index: jax.Array) -> jax.Array:
    """Returns one key for each example, which depends on its place in the global batch [n].

    So an example gets the same random numbers on any number of devices.
    """
    return jax.vmap(jax.random.fold_in, (None, 0))(key, index)
