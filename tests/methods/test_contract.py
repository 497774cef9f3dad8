"""Contract of every method, tested on the shrunk `:cifar10_cpu` variant of each config.

Tests run in float64, where rounding cannot hide a real difference: few rows share statistics here,
and float32 would leave three digits after normalisation.
"""

import dataclasses
import functools
import importlib
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from ssl_jax import components, methods, parallel
from ssl_jax.optim import optimizers
from ssl_jax.training import state as states
from ssl_jax.training import step
from ssl_jax.training.probe import Probe

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIGS = sorted(path.stem for path in (ROOT / "configs").glob("*.py") if path.stem != "common")
DEVICES, CHUNKS, CHUNK = 8, 2, 8  # a chunk holds the images of one device in a micro-batch
B, TOTAL = DEVICES * CHUNKS * CHUNK, 8
LARGEST = 2 * B  # largest width or length
LIMITS = {"shuffle_groups": 2}  # smaller limits of single fields: a chunk has 2 groups


@pytest.fixture(scope="module", autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def load(name):
    return importlib.import_module(f"configs.{name}").get_config("cifar10_cpu")


def shrunk(seen):
    """Shrinks full-size views to 8 pixels a side and local crops to 4."""
    local = seen["local_views"].shape[0] if "local_views" in seen else 0
    return tiny.seen(seen["views"].shape[0], 8, local=local, local_size=4)


def make(name):
    """Makes the config's method with every width and length limited to LARGEST."""
    config = load(name)
    seen = shrunk(components.make_input(config).seen)
    # The full-size views of four examples share statistics, so a chunk holds two such groups.
    group = 4 * seen["views"].shape[0]
    run = methods.Run(seen, TOTAL, B, num_examples=4 * B, bn_group=group, chunk=CHUNK)
    fields = config.method.to_dict()
    method = methods.get(fields.pop("name"))
    if "teacher" in fields:
        fields["teacher"] = tiny.teacher(fields["teacher"])
    small = {n: min(v, LIMITS.get(n, LARGEST)) if type(v) is int else v for n, v in fields.items()}
    encoder = tiny.encoder(config.model, jnp.float64)
    return Case(method(encoder, run, **small), seen, encoder)


@dataclasses.dataclass(eq=False)  # hashed by identity, because a method may hold dicts
class Case:
    method: methods.Method
    seen: dict[str, jax.ShapeDtypeStruct]
    encoder: Any


def batch(seen):
    rng = np.random.Generator(np.random.PCG64(3))
    rows = {"index": np.arange(B, dtype=np.int32), "label": np.arange(B, dtype=np.int32) % 3}
    return rows | {name: rng.random((B, *one.shape)) for name, one in seen.items()}


TX, SCHEDULE = optimizers.make(
    "sgd", lr=0.1, lr_rule="constant", batch_size=B, warmup_steps=0, total_steps=TOTAL,
    weight_decay=0.0,
)  # fmt: skip
PROBE = Probe(3)


def init_fn(case):
    return states.init_fn(case.method, TX, PROBE, batch(case.seen), seed=5)


@functools.cache
def start(case):
    """State before the first step, with floating-point leaves in float64."""
    mesh = parallel.make_mesh(jax.devices()[:1])
    state = jax.device_get(states.new_state(init_fn(case), case.method.layout, mesh))
    return jax.tree.map(lambda x: x.astype(float) if x.dtype == np.float32 else x, state)


@functools.cache
def program(case, devices, microbatch):
    """Returns (mesh, shardings of the state, the jitted step)."""
    # With several devices, parameters are sharded over four of them.
    mesh = parallel.make_mesh(jax.devices()[:devices], fsdp=min(devices, 4))
    function = step.make_train_step(
        case.method, TX, SCHEDULE, PROBE, seed=5, mesh=mesh, microbatch=microbatch
    )
    return (
        mesh,
        states.state_shardings(jax.eval_shape(init_fn(case)), case.method.layout, mesh),
        jax.jit(function),
    )


def steps(case, count, *, devices=1, microbatch=0, state=None, labels=None):
    mesh, shardings, function = program(case, devices, microbatch)
    rows = batch(case.seen) | ({} if labels is None else {"label": labels})
    with jax.set_mesh(mesh):
        state = jax.device_put(start(case) if state is None else state, shardings)
        for _ in range(count):
            state, metrics = function(state, parallel.to_global(rows, mesh))
    return jax.device_get((state, metrics))


def assert_close(a, b):
    # The probe is left out: its Adam divides first gradients by their own size, rounding included.
    a, b = ((state.replace(probe=()), metrics) for state, metrics in (a, b))
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=1e-9 * max(np.abs(y).max(), 1e-2))


@pytest.fixture(scope="module", autouse=True)
def shard_parameters_of_any_size():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ssl_jax.parallel.mesh.MIN_FSDP_ELEMENTS", 1)
        yield


@pytest.fixture(scope="module", params=CONFIGS)
def case(request):
    return make(request.param)


@pytest.fixture(scope="module")
def whole(case):
    return steps(case, TOTAL)


def test_every_method_has_a_config():
    assert {load(name).method.name for name in CONFIGS} == set(methods.names())


def test_training_keeps_the_structure_of_the_state(case, whole):
    expected = jax.eval_shape(lambda: start(case))
    actual = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(np.shape(x), np.asarray(x).dtype), whole[0]
    )
    assert jax.tree.structure(expected) == jax.tree.structure(actual)
    for x, y in zip(jax.tree.leaves(expected), jax.tree.leaves(actual), strict=True):
        assert (x.shape, x.dtype) == (y.shape, y.dtype)


@pytest.fixture(scope="module")
def first(case):
    """State and metrics after one step. Later steps would amplify rounding."""
    return steps(case, 1)


def test_micro_batches_on_8_devices_equal_the_whole_batch_on_one(case, first):
    assert_close(first, steps(case, 1, devices=DEVICES, microbatch=DEVICES * CHUNK))


def test_labels_change_nothing_but_the_probe(case, whole):
    other, _ = steps(case, TOTAL, labels=batch(case.seen)["label"][::-1].copy())
    for field in ("params", "extra", "opt_state"):
        a, b = getattr(whole[0], field), getattr(other, field)
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
            np.testing.assert_array_equal(x, y)


def test_resuming_reproduces_the_same_bits(case, first, whole):
    resumed = steps(case, TOTAL - 1, state=first[0])
    for x, y in zip(jax.tree.leaves(whole), jax.tree.leaves(resumed), strict=True):
        np.testing.assert_array_equal(x, y)


def test_every_parameter_moves_and_stays_finite(first, whole):
    start, _ = first
    moved = jax.tree.map(lambda x, y: not np.array_equal(x, y), start.params, whole[0].params)
    for path, changed in jax.tree_util.tree_leaves_with_path(moved):
        assert changed, f"{path} did not move"
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(whole))


def test_features_are_float32_rows_for_inference(case, whole):
    state, _ = whole
    images = jnp.asarray(batch(case.seen)["views"][:, 0])
    one = case.method.features(state.params, state.extra, images[:1])
    many = case.method.features(state.params, state.extra, images)
    assert one.dtype == jnp.float32
    assert one.ndim == 2
    # Inference uses running statistics, so a row does not depend on its neighbours.
    np.testing.assert_allclose(one[0], many[0], rtol=1e-6)


def test_encoder_module_computes_the_features(case, whole):
    state, _ = whole
    images = jnp.asarray(batch(case.seen)["views"][:, 0])
    params, stats = case.method.modules(state.params, state.extra)
    variables = {"params": params["encoder"], "batch_stats": stats.get("encoder", {})}
    features = jnp.asarray(case.encoder.apply(variables, images, False), jnp.float32)
    np.testing.assert_array_equal(features, case.method.features(state.params, state.extra, images))


def test_unknown_method_lists_all_methods():
    with pytest.raises(ValueError, match="simclr"):
        methods.get("simcrl")
