"""The encoder that NumPy can follow, and what a method does with it from step to step."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from ssl_jax import parallel
from ssl_jax.training import state as states
from ssl_jax.training import step
from ssl_jax.training.probe import Probe


class Linear(nn.Module):
    """Images to 4 features by one matrix, params {"dense": {"kernel": [h w 3, 4]}}."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, train):
        return nn.Dense(4, use_bias=False, name="dense")(x.reshape(len(x), -1))


def batches(count, b, views=2, size=2, examples=None):
    """Random batches of `count` steps; every example comes once, of `examples` at random."""
    rng = np.random.Generator(np.random.PCG64(11))
    return [
        {
            "views": rng.standard_normal((b, views, size, size, 3)).astype(np.float32),
            "index": rng.permutation(examples or b)[:b].astype(np.int32),
        }
        for _ in range(count)
    ]


def trajectory(method, rows, learning_rate=0.5):
    """[(state before the step, metrics of the step)] and the last state, by plain SGD."""
    tx, probe = optax.sgd(learning_rate), Probe(0)
    mesh = parallel.make_mesh(jax.devices()[:1])
    init = states.init_fn(method, tx, probe, rows[0], seed=2)
    function = jax.jit(
        step.make_train_step(method, tx, lambda _: jnp.zeros(()), probe, seed=2, mesh=mesh)
    )
    state, found = jax.jit(init)(), []
    for batch in rows:
        before = jax.device_get(state)
        state, metrics = function(state, batch)
        found.append((before, jax.device_get(metrics)))
    return found, jax.device_get(state)


def flat(views):
    """[b, v, h, w, 3] to float64 [b, v, h w 3]."""
    return views.reshape(*views.shape[:2], -1).astype(np.float64)


def unit(z):
    """Rows of unit length, float64."""
    z = np.asarray(z, np.float64)
    return z / np.linalg.norm(z, axis=-1, keepdims=True)
