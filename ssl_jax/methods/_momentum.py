"""What the methods with a momentum encoder, or target network, share."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

Tree = Any


def cosine_momentum(base: float, step: jax.Array, total_steps: int) -> jax.Array:
    """Momentum from `base` at step 0 to 1 at the end, by half a cosine; float32 [].

    Source: BYOL (arXiv 2006.07733), section 3.3: 1 - (1 - base) (cos(pi k / K) + 1) / 2.
    """
    done = jnp.asarray(step, jnp.float32) / total_steps
    return 1 - (1 - base) * (jnp.cos(jnp.pi * done) + 1) / 2


def moving_average(target: Tree, online: Tree, momentum: float | jax.Array) -> Tree:
    """momentum * target + (1 - momentum) * online, for the parameters that `target` has."""
    return {
        name: optax.incremental_update(online[name], target[name], 1 - momentum) for name in target
    }


def distance(target: Tree, online: Tree) -> dict[str, jax.Array]:
    """{"target_distance": |online - target| / |online|} over the parameters that `target` has."""
    online = jax.lax.stop_gradient({name: online[name] for name in target})
    gap = optax.tree.norm(jax.tree.map(jnp.subtract, online, target))
    return {"target_distance": gap / optax.tree.norm(online)}
