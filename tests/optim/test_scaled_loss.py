"""LARS on a scaled loss, against the two learning rates of Barlow Twins' optimizer."""

import jax
import numpy as np
import optax

from ssl_jax.optim import optimizers

SCALE, RATE, DECAY, MOMENTUM, ETA = 0.024, 0.2, 1.5e-2, 0.9, 0.001
STEPS = 5


def lars_with_two_rates(params, gradients):
    """LARS in float64 with a rate of its own for biases, which are neither decayed nor adapted."""
    params = {name: np.float64(value) for name, value in params.items()}
    buffers = {name: np.zeros_like(value) for name, value in params.items()}
    rates = {"weight": RATE, "bias": SCALE * RATE}
    for gradient in gradients:
        for name, value in params.items():
            step = np.float64(gradient[name])
            if name == "weight":
                step = step + DECAY * value
                step = step * ETA * np.linalg.norm(value) / np.linalg.norm(step)
            buffers[name] = MOMENTUM * buffers[name] + step
            params[name] = value - rates[name] * buffers[name]
    return params


def train(params, gradients, scale, decay):
    tx, _ = optimizers.make(
        "lars", lr=RATE, lr_rule="constant", batch_size=256, warmup_steps=0, total_steps=STEPS,
        weight_decay=decay, schedule="constant", momentum=MOMENTUM, lr_in_momentum=False,
        trust_coefficient=ETA,
    )  # fmt: skip
    state = tx.init(params)
    for gradient in gradients:
        scaled = jax.tree.map(lambda g: np.float32(scale) * g, gradient)
        updates, state = tx.update(scaled, state, params)
        params = optax.apply_updates(params, updates)
    return params


def test_scaled_loss_and_decay_equal_a_separate_rate_of_biases():
    rng = np.random.default_rng(0)
    shapes = {"weight": (7, 5), "bias": (5,)}

    def draw():
        return {n: rng.standard_normal(shape).astype(np.float32) for n, shape in shapes.items()}

    params, gradients = draw(), [draw() for _ in range(STEPS)]
    want = lars_with_two_rates(params, gradients)
    got = train(params, gradients, SCALE, SCALE * DECAY)
    for name, value in want.items():
        moved = value - params[name]
        assert np.abs(moved).max() > 1e-4
        np.testing.assert_allclose(got[name] - params[name], moved, rtol=2e-3, atol=1e-6)
    # Without the scale of the decay, the decay is a larger share of the update.
    other = train(params, gradients, SCALE, DECAY)["weight"] - params["weight"]
    assert np.abs(other - (want["weight"] - params["weight"])).max() > 1e-4
