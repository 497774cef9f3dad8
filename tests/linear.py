"""A linear encoder that NumPy can follow, and the training of a method with it step by step."""

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
    """Maps images to 4 features by one matrix; params {"dense": {"kernel": [h w 3, 4]}}."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, train):
        return nn.Dense(4, use_bias=False, name="dense")(x.reshape(len(x), -1))


def batches(count, b, views=2, size=2, examples=None):
    """Random batches for `count` steps, each of `b` different examples out of `examples`."""
    rng = np.random.Generator(np.random.PCG64(11))
    return [
        {
            "views": rng.standard_normal((b, views, size, size, 3)).astype(np.float32),
            "index": rng.permutation(examples or b)[:b].astype(np.int32),
        }
        for _ in range(count)
    ]


def trajectory(method, rows, learning_rate=0.5, tx=None):
    """Trains by plain SGD, or by the optimizer `tx`.

    Returns:
      ([(state before the step, metrics of the step)], last state).
    """
    tx, probe = tx or optax.sgd(learning_rate), Probe(0)
    mesh = parallel.make_mesh(jax.devices()[:1])
    init = states.init_fn(method, tx, probe, rows[0], seed=2)
    function = jax.jit(
        step.make_train_step(method, tx, lambda _: jnp.zeros(()), probe, seed=2, mesh=mesh)
    )
    state, history = jax.jit(init)(), []
    for batch in rows:
        before = jax.device_get(state)
        state, metrics = function(state, batch)
        history.append((before, jax.device_get(metrics)))
    return history, jax.device_get(state)


def flat(views):
    """Reshapes [b, v, h, w, 3] to float64 [b, v, h w 3]."""
    return views.reshape(*views.shape[:2], -1).astype(np.float64)


def unit(z):
    """Scales rows to unit length, in float64."""
    z = np.asarray(z, np.float64)
    return z / np.linalg.norm(z, axis=-1, keepdims=True)
