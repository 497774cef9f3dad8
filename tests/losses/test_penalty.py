"""Penalties of weights against their formulas in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.losses import penalty

RNG = np.random.default_rng(0)
PARAMS = {
    "dense0": {"kernel": 0.02 * RNG.normal(size=(5, 4))},
    "bn0": {"scale": np.full(4, 7.0), "bias": np.full(4, 3.0)},
    "dense1": {"kernel": 0.02 * RNG.normal(size=(4, 2))},
}
WEIGHTS = [PARAMS["dense0"]["kernel"], PARAMS["dense1"]["kernel"]]


def l2(w):
    return sum(0.5 * x * x for x in w.flat), w


def smooth_l1(w):
    total = sum(50 * x * x if abs(x) < 0.01 else abs(x) - 0.005 for x in w.flat)
    return total, np.clip(100 * w, -1, 1)


@pytest.mark.parametrize(("function", "oracle"), [(penalty.l2, l2), (penalty.smooth_l1, smooth_l1)])
def test_penalties_and_gradients_of_weights_alone(function, oracle):
    assert 0.2 < np.mean(np.abs(WEIGHTS[0]) < 0.01) < 0.8  # both sides of the knee
    with jax.enable_x64(True):
        value, gradient = jax.value_and_grad(function)(jax.tree.map(jnp.asarray, PARAMS))
    assert float(value) == pytest.approx(sum(oracle(w)[0] for w in WEIGHTS), rel=1e-12)
    for name, w in zip(("dense0", "dense1"), WEIGHTS, strict=True):
        np.testing.assert_allclose(gradient[name]["kernel"], oracle(w)[1], rtol=1e-9)
    assert not np.any(gradient["bn0"]["scale"])
    assert not np.any(gradient["bn0"]["bias"])


@pytest.mark.parametrize("function", [penalty.l2, penalty.smooth_l1])
def test_the_gradient_at_zero_is_zero(function):
    gradient = jax.grad(function)({"kernel": jnp.zeros((2, 2))})
    np.testing.assert_array_equal(gradient["kernel"], 0)


def test_a_head_without_weights_has_no_penalty():
    assert penalty.l2({}) == penalty.smooth_l1({}) == 0
