"""Settings of the tested optimizers, their schedules in float64, and their updates."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ssl_jax.optim import optimizers

WARMUP, TOTAL, PEAK = 3, 12, 0.7


def make(name, **changes):
    settings = {
        "lr": PEAK,
        "lr_rule": "constant",
        "batch_size": 64,
        "warmup_steps": WARMUP,
        "total_steps": TOTAL,
        "weight_decay": 0.05,
    }
    return optimizers.make(name, **(settings | changes))


def rate(step):
    """Cosine schedule with warm-up, in float64."""
    if step < WARMUP:
        return PEAK * step / WARMUP
    return PEAK * 0.5 * (1 + np.cos(np.pi * (step - WARMUP) / (TOTAL - WARMUP)))


def decay(step, end):
    """Weight decay in float64: constant 0.05, or half a cosine from 0.05 to `end`."""
    return 0.05 if end is None else end + (0.05 - end) * (1 + np.cos(np.pi * step / TOTAL)) / 2


def run(tx, params, grads):
    """Returns the parameters after each update of `tx`."""
    to_float32 = lambda tree: jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree)  # noqa: E731
    params, visited = to_float32(params), []
    state = tx.init(params)

    @jax.jit
    def update(grad, state, params):
        updates, state = tx.update(grad, state, params)
        return optax.apply_updates(params, updates), state

    for grad in grads:
        params, state = update(to_float32(grad), state, params)
        visited.append(params)
    return visited


def assert_close(got, want, atol=1e-6):
    for name, value in want.items():
        np.testing.assert_allclose(got[name], value, rtol=2e-6, atol=atol, err_msg=name)
