"""Properties of every loss on the global batch, checked against an oracle in NumPy."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import parallel

STEP = 1e-5  # of central differences: accurate to about 1e-9 in float64


def rows(*shape, seed=0):
    """Random rows of different lengths, away from the origin."""
    return np.random.default_rng(seed).normal(size=shape) * 1.5 + 0.4


def assert_equals_oracle(loss, oracle, *arrays, constant=0, metrics=None):
    """Asserts that loss, metrics and gradient equal the oracle's in float64, at random coordinates.

    The last `constant` arrays must receive no gradient at all.
    """
    argnums = tuple(range(len(arrays)))
    with jax.enable_x64(True):
        step = jax.jit(jax.value_and_grad(loss, argnums=argnums, has_aux=True))
        (value, got_metrics), gradient = step(*map(jnp.asarray, arrays))
        assert {v.dtype for v in (value, *got_metrics.values())} == {jnp.dtype(jnp.float64)}
    assert float(value) == pytest.approx(oracle(*arrays), rel=1e-12)
    if metrics is not None:
        assert {k: float(v) for k, v in got_metrics.items()} == pytest.approx(metrics, rel=1e-10)
    rng = np.random.default_rng(5)
    for i, (array, got) in enumerate(zip(arrays, gradient, strict=True)):
        if i >= len(arrays) - constant:
            assert not np.any(got)
            continue
        assert np.any(got)
        for place in rng.choice(array.size, 12, replace=False):
            ends = []
            for step in (STEP, -STEP):
                moved = array.copy()
                moved.flat[place] += step
                ends.append(oracle(*arrays[:i], moved, *arrays[i + 1 :]))
            want = (ends[0] - ends[1]) / (2 * STEP)
            assert np.asarray(got).flat[place] == pytest.approx(
                want, rel=1e-6, abs=1e-7 * np.abs(got).max()
            )


def assert_same_on_8_devices(loss, *arrays, rows_stay):
    """Asserts that 8 devices compute the same as one. All arrays are sharded on their first axis.

    `rows_stay`: devices exchange only sums, never rows.
    """
    results = []
    for devices in (1, 8):
        mesh = parallel.make_mesh(jax.devices()[:devices])
        sharding = parallel.rows(mesh)
        step = jax.jit(
            jax.value_and_grad(loss, argnums=tuple(range(len(arrays))), has_aux=True),
            out_shardings=((None, None), sharding),
        )
        with jax.set_mesh(mesh):
            sharded = [jax.device_put(jnp.asarray(a, jnp.float32), sharding) for a in arrays]
            compiled = step.lower(*sharded).compile()
            results.append(jax.tree.map(np.asarray, compiled(*sharded)))
    for want, got in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-6 * max(np.abs(want).max(), 1e-3))
    text = compiled.as_text()
    assert "all-reduce" in text
    row_transfers = r"(all-gather|all-to-all|collective-permute|reduce-scatter)(-start)?\("
    assert rows_stay != bool(re.search(row_transfers, text))


def assert_finite_when_degenerate(loss, *arrays):
    """Asserts finite loss, metrics and gradient for equal rows, zero rows and one zero row."""
    argnums = tuple(range(len(arrays)))
    step = jax.jit(jax.value_and_grad(loss, argnums=argnums, has_aux=True))
    one_zero = [a.copy() for a in arrays]
    for array in one_zero:
        array[1, 0] = 0
    equal = [np.full_like(a, 0.7) for a in arrays]
    for degenerate in (equal, [np.zeros_like(a) for a in arrays], one_zero):
        results = step(*(jnp.asarray(a, jnp.float32) for a in degenerate))
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(results))


def assert_computes_in_float32(loss, *arrays):
    """Asserts that bfloat16 inputs are rounded once, on input, and computed in float32."""
    narrow = [jnp.asarray(a, jnp.bfloat16) for a in arrays]
    loss = jax.jit(loss)
    value, metrics = loss(*narrow)
    assert {v.dtype for v in (value, *metrics.values())} == {jnp.dtype(jnp.float32)}
    want = loss(*(a.astype(jnp.float32) for a in narrow))[0]
    assert float(value) == pytest.approx(float(want), rel=1e-6)
