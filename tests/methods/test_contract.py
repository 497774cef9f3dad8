"""What every method must hold, whichever configs there are: each `:cifar10_cpu`, shrunk.

In float64, where a real difference cannot hide behind rounding: few rows share statistics here,
and float32 comes out of their normalisation with three digits.
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

from ssl_jax import build, methods, parallel
from ssl_jax.inputs.image.views import View, split
from ssl_jax.optim import optimizers
from ssl_jax.training import step

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIGS = sorted(path.stem for path in (ROOT / "configs").glob("*.py") if path.stem != "common")
DEVICES, CHUNKS, CHUNK = 8, 2, 8  # a chunk: images of one device in a micro-batch
B, TOTAL = DEVICES * CHUNKS * CHUNK, 8
MOST = 2 * B  # of widths and lengths
FEW = {"shuffle_groups": 2}  # as many as a chunk has


@pytest.fixture(scope="module", autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def load(name):
    return importlib.import_module(f"configs.{name}").get_config("cifar10_cpu")


def shrunk(views):
    """The views with 8 pixels a side; local crops, which are smaller, with 4."""
    return tuple(v._replace(size=8 if v.size == views[0].size else 4) for v in views)


def make(name):
    """The config's method, every width and length of which is at most MOST."""
    config = load(name)
    views = shrunk(build.views(config))
    # Four examples in all their full-size views share statistics: two such groups in a chunk.
    group = 4 * len(split(views)[0])
    run = methods.Run(views, TOTAL, B, num_examples=4 * B, bn_group=group, chunk=CHUNK)
    fields = config.method.to_dict()
    method = methods.get(fields.pop("name"))
    if "teacher" in fields:
        fields["teacher"] = tiny.teacher(fields["teacher"])
    small = {n: min(v, FEW.get(n, MOST)) if type(v) is int else v for n, v in fields.items()}
    encoder = tiny.encoder(config.model, jnp.float64)
    return Case(method(encoder, run, **small), views, encoder)


@dataclasses.dataclass(eq=False)  # a key by identity: a method may hold dicts
class Case:
    method: methods.Method
    views: tuple[View, ...]
    encoder: Any


def batch(views):
    rng = np.random.Generator(np.random.PCG64(3))
    rows = {"index": np.arange(B, dtype=np.int32), "label": np.arange(B, dtype=np.int32) % 3}
    for name, group in zip(("views", "local_views"), split(views), strict=True):
        if group:
            size = group[0].size
            rows[name] = rng.random((B, len(group), size, size, 3))
    return rows


TX, SCHEDULE = optimizers.make(
    "sgd", lr=0.1, lr_rule="constant", batch_size=B, warmup_steps=0, total_steps=TOTAL,
    weight_decay=0.0,
)  # fmt: skip
PROBE = step.Probe(3)


def init_fn(case):
    return step.init_fn(case.method, TX, PROBE, batch(case.views), seed=5)


@functools.cache
def start(case):
    """Step 0's state, float64 where it has fractions."""
    mesh = parallel.make_mesh(jax.devices()[:1])
    state = jax.device_get(step.born_sharded(init_fn(case), case.method, mesh))
    return jax.tree.map(lambda x: x.astype(float) if x.dtype == np.float32 else x, state)


@functools.cache
def program(case, devices, microbatch):
    """(mesh, shardings of the state, the jitted step)."""
    # Of several devices four hold a share each of the parameters.
    mesh = parallel.make_mesh(jax.devices()[:devices], fsdp=min(devices, 4))
    function = step.make_train_step(
        case.method, TX, SCHEDULE, PROBE, seed=5, mesh=mesh, microbatch=microbatch
    )
    return (
        mesh,
        step.state_shardings(jax.eval_shape(init_fn(case)), case.method.layout, mesh),
        jax.jit(function),
    )


def steps(case, count, *, devices=1, microbatch=0, state=None, labels=None):
    mesh, shardings, function = program(case, devices, microbatch)
    rows = batch(case.views) | ({} if labels is None else {"label": labels})
    with jax.set_mesh(mesh):
        state = jax.device_put(start(case) if state is None else state, shardings)
        for _ in range(count):
            state, metrics = function(state, parallel.to_global(rows, mesh))
    return jax.device_get((state, metrics))


def assert_close(a, b):
    # Not the probe: its Adam divides first gradients by their own size, rounding included.
    a, b = ((state.replace(probe=()), metrics) for state, metrics in (a, b))
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=1e-9 * max(np.abs(y).max(), 1e-2))


@pytest.fixture(scope="module", autouse=True)
def every_parameter_may_be_divided():
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


def test_a_step_keeps_the_structure_of_the_state(case, whole):
    expected = jax.eval_shape(lambda: start(case))
    found = jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), np.asarray(x).dtype), whole[0])
    assert jax.tree.structure(expected) == jax.tree.structure(found)
    for x, y in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
        assert (x.shape, x.dtype) == (y.shape, y.dtype)


@pytest.fixture(scope="module")
def first(case):
    """One step alone, for comparisons to rounding: every further step enlarges it."""
    return steps(case, 1)


def test_micro_batches_on_eight_devices_agree_with_the_whole_on_one(case, first):
    assert_close(first, steps(case, 1, devices=DEVICES, microbatch=DEVICES * CHUNK))


def test_labels_change_nothing_but_the_probe(case, whole):
    other, _ = steps(case, TOTAL, labels=batch(case.views)["label"][::-1].copy())
    for field in ("params", "extra", "opt_state"):
        a, b = getattr(whole[0], field), getattr(other, field)
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
            np.testing.assert_array_equal(x, y)


def test_same_seed_same_bits_and_resume_is_exact(case, first, whole):
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
    images = jnp.asarray(batch(case.views)["views"][:, 0])
    one = case.method.features(state.params, state.extra, images[:1])
    many = case.method.features(state.params, state.extra, images)
    assert one.dtype == jnp.float32
    assert one.ndim == 2
    # Inference uses running statistics: a row does not depend on its neighbours.
    np.testing.assert_allclose(one[0], many[0], rtol=1e-6)


def test_the_modules_that_fine_tuning_takes_make_the_features(case, whole):
    state, _ = whole
    images = jnp.asarray(batch(case.views)["views"][:, 0])
    params, stats = case.method.modules(state.params, state.extra)
    variables = {"params": params["encoder"], "batch_stats": stats.get("encoder", {})}
    found = jnp.asarray(case.encoder.apply(variables, images, False), jnp.float32)
    np.testing.assert_array_equal(found, case.method.features(state.params, state.extra, images))


def test_unknown_method_lists_what_exists():
    with pytest.raises(ValueError, match="simclr"):
        methods.get("simcrl")
