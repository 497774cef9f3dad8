"""Collapse signals against NumPy's eigenvalues and hand-worked values."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import parallel
from ssl_jax.training.collapse import collapse_signals

measure = jax.jit(collapse_signals)


def oracle(features):
    """Returns the signals by their definitions in float64, from eigenvalues and all pairs."""
    x = np.asarray(features, np.float64)[:: math.ceil(len(features) / 256)]
    x = x / np.linalg.norm(x, axis=-1, keepdims=True)
    first = x[:, 0]
    eigenvalues = np.linalg.eigvalsh(np.cov(first.T, bias=True))
    distances = np.square(first[:, None] - first[None]).sum(-1)
    pairs = np.exp(-2 * distances)[~np.eye(len(first), dtype=bool)]
    return {
        "feature_std": first.std(0).mean() * np.sqrt(x.shape[-1]),
        "effective_rank": eigenvalues.sum() ** 2 / np.square(eigenvalues).sum(),
        "feature_uniformity": np.log(np.mean(pairs)),
        "feature_alignment": np.square(x[:, 0] - x[:, 1]).sum(-1).mean(),
    }


def random_features(b, spread=1.0, f=12):
    """Returns [b, 3, f] with another deviation from the mean per dimension, and close views."""
    rng = np.random.Generator(np.random.PCG64(b))
    x = 1 + spread * np.linspace(0.2, 1, f) * rng.normal(size=(b, 1, f))
    x = x + 0.3 * spread * rng.normal(size=(b, 3, f))
    return (x * rng.uniform(0.1, 10, (b, 3, 1))).astype(np.float32)


def assert_signals(signals, wanted, **tolerance):
    assert signals.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_allclose(signals[name], value, err_msg=name, **tolerance)


@pytest.mark.parametrize("b", [2, 256, 257, 600])
def test_signals_match_their_definitions(b):
    x = random_features(b)
    signals = measure(x)
    assert all(value.dtype == jnp.float32 for value in signals.values())
    assert_signals(signals, oracle(x), rtol=2e-5)


def test_signals_are_accurate_close_to_collapse():
    # 1 - cosine is 1e-6 here, ten units of float32's last place. Computed from cosines, the signals
    # would be wrong in every digit.
    x = random_features(200, spread=1e-3)
    wanted = oracle(x)
    assert wanted["feature_std"] < 1e-3
    assert_signals(measure(x), wanted, rtol=1e-4)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e30])
def test_signals_of_equal_features_are_zero(value):
    row = value * np.linspace(0.3, 1, 12, dtype=np.float32)
    signals = measure(jnp.broadcast_to(row, (200, 2, 12)))
    assert_signals(signals, dict.fromkeys(signals, 0.0), atol=1e-5)
    assert signals["effective_rank"] == 0


def test_two_opposite_clusters_have_rank_one():
    axis = np.array([1, 0, 0, 0], np.float32)
    x = np.stack([axis, axis, -axis, -3 * axis])
    signals = measure(x[:, None])
    wanted = {
        "feature_std": 2 * 1 / 4,  # one of four dimensions has a deviation of 1; times sqrt(4)
        "effective_rank": 1,
        # Of 12 ordered pairs, 4 have distance 0 and 8 have distance 2.
        "feature_uniformity": math.log((4 + 8 * math.exp(-8)) / 12),
    }
    assert_signals(signals, wanted, rtol=1e-6)


def test_evenly_spread_directions_have_full_rank_and_std_one():
    axes = np.concatenate([np.eye(8), -np.eye(8)]).astype(np.float32)
    signals = measure(np.stack([axes, -axes], 1))
    # Each row has 14 other rows at distance sqrt(2) and one at distance 2.
    uniformity = math.log((14 * math.exp(-4) + math.exp(-8)) / 15)
    wanted = {"feature_std": 1, "effective_rank": 8, "feature_uniformity": uniformity}
    assert_signals(signals, wanted | {"feature_alignment": 4}, rtol=1e-6)


def test_one_example_has_no_signals():
    assert collapse_signals(jnp.ones((1, 2, 4))) == {}


def test_signals_have_no_gradient():
    x = random_features(8)
    jacobian = jax.jit(jax.jacrev(collapse_signals))(x)
    assert jacobian.keys() == oracle(x).keys()
    for grad in jacobian.values():
        np.testing.assert_array_equal(grad, 0)


def test_bfloat16_is_measured_in_float32():
    x = jnp.asarray(random_features(64), jnp.bfloat16)
    assert_signals(measure(x), oracle(x), rtol=2e-5)


@pytest.mark.parametrize("b", [64, 2048])
def test_only_the_sample_moves_between_devices(b):
    f, mesh = 24, parallel.make_mesh()
    x = random_features(b, f=f)
    with jax.set_mesh(mesh):
        batch = parallel.to_global({"x": x}, mesh)["x"]
        program = jax.jit(collapse_signals).lower(batch).compile()
        assert_signals(program(batch), oracle(x), rtol=2e-5)
    moved = 0
    for line in program.as_text().splitlines():
        match = re.search(r"= (.*?) (all-\w+|reduce-scatter|collective-\w+)(-start)?\(", line)
        for shape in re.findall(r"\[([\d,]*)\]", match.group(1) if match else ""):
            elements = math.prod(int(n) for n in shape.split(",") if n)
            assert elements <= min(b, 256) * f, line
            moved += elements
    # The rows of the first view move once, and sums: less than one more view of the sample.
    assert min(b, 256) * f <= moved < 2 * min(b, 256) * f
