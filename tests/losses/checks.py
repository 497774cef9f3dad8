"""What every loss on the global batch must hold, checked against an oracle in NumPy."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import parallel

STEP = 1e-5  # of central differences: in float64 they are then good to 1e-9 or so


def rows(*shape, seed=0):
    """Rows that differ in length and lie off the origin."""
    return np.random.default_rng(seed).normal(size=shape) * 1.5 + 0.4


def equals(loss, oracle, *arrays, constant=0, metrics=None):
    """Loss, metrics and gradient equal the oracle's in float64, at random coordinates.

    The last `constant` arrays must get no gradient at all.
    """
    many = tuple(range(len(arrays)))
    with jax.enable_x64(True):
        step = jax.jit(jax.value_and_grad(loss, argnums=many, has_aux=True))
        (value, found), gradient = step(*map(jnp.asarray, arrays))
        assert {v.dtype for v in (value, *found.values())} == {jnp.dtype(jnp.float64)}
    assert float(value) == pytest.approx(oracle(*arrays), rel=1e-12)
    if metrics is not None:
        assert {k: float(v) for k, v in found.items()} == pytest.approx(metrics, rel=1e-10)
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


def devices_do_not_matter(loss, *arrays, rows_stay):
    """8 devices give what one gives. All arrays are sharded on their first axis.

    `rows_stay`: devices exchange sums only, never rows.
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
    moves = r"(all-gather|all-to-all|collective-permute|reduce-scatter)(-start)?\("
    assert rows_stay != bool(re.search(moves, text))


def finite_when_degenerate(loss, *arrays):
    """All rows equal, all rows zero, one row zero: loss, metrics and gradient are finite."""
    many = tuple(range(len(arrays)))
    step = jax.jit(jax.value_and_grad(loss, argnums=many, has_aux=True))
    one_zero = [a.copy() for a in arrays]
    for array in one_zero:
        array[1, 0] = 0
    equal = [np.full_like(a, 0.7) for a in arrays]
    for degenerate in (equal, [np.zeros_like(a) for a in arrays], one_zero):
        found = step(*(jnp.asarray(a, jnp.float32) for a in degenerate))
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))


def keeps_at_least_float32(loss, *arrays):
    """bfloat16 is rounded once, on the way in."""
    narrow = [jnp.asarray(a, jnp.bfloat16) for a in arrays]
    loss = jax.jit(loss)
    value, metrics = loss(*narrow)
    assert {v.dtype for v in (value, *metrics.values())} == {jnp.dtype(jnp.float32)}
    want = loss(*(a.astype(jnp.float32) for a in narrow))[0]
    assert float(value) == pytest.approx(float(want), rel=1e-6)
