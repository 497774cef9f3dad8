"""What every method must hold, whichever modules are in ssl_jax/methods/."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from ssl_jax import methods, optim, parallel, step
from ssl_jax.augment.views import View

B, SIZE = 16, 8


def make(name):
    views = (View(size=SIZE), View(size=SIZE))
    return methods.get(name)(tiny.Encoder(bn_group=8), views=views, total_steps=8)


def batch():
    rng = np.random.Generator(np.random.PCG64(3))
    return {
        "views": rng.random((B, 2, SIZE, SIZE, 3), np.float32),
        "index": np.arange(B, dtype=np.int32),
        "label": np.arange(B, dtype=np.int32) % 3,
    }


def steps(method, count, *, devices=1, microbatch=0, state=None, labels=None):
    mesh = parallel.make_mesh(jax.devices()[:devices])
    tx, schedule = optim.make(
        "sgd", lr=0.1, lr_rule="constant", batch_size=B, warmup_steps=0, total_steps=8,
        weight_decay=0.0,
    )  # fmt: skip
    probe = step.Probe(3)
    rows = batch() if labels is None else batch() | {"label": labels}
    with jax.set_mesh(mesh):
        init = step.init_fn(method, tx, probe, batch(), seed=5)
        function = jax.jit(
            step.make_train_step(
                method, tx, schedule, probe, seed=5, mesh=mesh, microbatch=microbatch
            )
        )
        state = step.born_sharded(init, method, mesh) if state is None else state
        for _ in range(count):
            state, metrics = function(state, parallel.to_global(rows, mesh))
    return jax.device_get((state, metrics))


def assert_close(a, b):
    # Not the probe: its Adam divides first gradients by their own size, rounding included.
    a, b = ((state.replace(probe=()), metrics) for state, metrics in (a, b))
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=1e-5 * max(np.abs(y).max(), 1e-2))


@pytest.fixture(scope="module", params=methods.names())
def method(request):
    return make(request.param)


@pytest.fixture(scope="module")
def whole(method):
    return steps(method, 2)


def test_a_step_keeps_the_structure_of_the_state(method, whole):
    tx, _ = optim.make(
        "sgd", lr=0.1, lr_rule="constant", batch_size=B, warmup_steps=0, total_steps=8,
        weight_decay=0.0,
    )  # fmt: skip
    init = step.init_fn(method, tx, step.Probe(3), batch(), seed=5)
    expected = jax.eval_shape(init)
    found = jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), np.asarray(x).dtype), whole[0])
    assert jax.tree.structure(expected) == jax.tree.structure(found)
    for x, y in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
        assert (x.shape, x.dtype) == (y.shape, y.dtype)


@pytest.fixture(scope="module")
def first(method):
    """One step alone, for comparisons to rounding: every further step enlarges it."""
    return steps(method, 1)


def test_eight_devices_agree_with_one(method, first):
    assert_close(first, steps(method, 1, devices=8))


def test_chunked_agrees_with_whole(method, first):
    assert_close(first, steps(method, 1, devices=2, microbatch=8))


def test_labels_change_nothing_but_the_probe(method, whole):
    other, _ = steps(method, 2, labels=batch()["label"][::-1].copy())
    for field in ("params", "extra", "opt_state"):
        a, b = getattr(whole[0], field), getattr(other, field)
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
            np.testing.assert_array_equal(x, y)


def test_same_seed_same_bits_and_resume_is_exact(method, first, whole):
    resumed = steps(method, 1, state=first[0])
    for x, y in zip(jax.tree.leaves(whole), jax.tree.leaves(resumed), strict=True):
        np.testing.assert_array_equal(x, y)


def test_every_parameter_moves_and_stays_finite(first, whole):
    start, _ = first
    moved = jax.tree.map(lambda x, y: not np.array_equal(x, y), start.params, whole[0].params)
    for path, changed in jax.tree_util.tree_leaves_with_path(moved):
        assert changed, f"{path} did not move"
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(whole))


def test_features_are_float32_rows_for_inference(method, whole):
    state, _ = whole
    images = jnp.asarray(batch()["views"][:, 0])
    one = method.features(state.params, state.extra, images[:1])
    many = method.features(state.params, state.extra, images)
    assert one.dtype == jnp.float32
    assert one.ndim == 2
    # Inference uses running statistics: a row does not depend on its neighbours.
    np.testing.assert_allclose(one[0], many[0], rtol=1e-5, atol=1e-6)


def test_unknown_method_lists_what_exists():
    with pytest.raises(ValueError, match="simclr"):
        methods.get("simcrl")
