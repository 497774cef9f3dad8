"""Rows of examples that stay divided over devices where the compiler would choose otherwise."""

import jax
from jax.sharding import PartitionSpec


def divided(x: jax.Array) -> jax.Array:
    """The same [b, ...] with its rows over all devices of `jax.set_mesh`, if these divide b."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or len(x) % mesh.size:
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(mesh.axis_names))
