"""The training step: equal on 1 and 8 devices, and with and without micro-batches."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from ssl_jax import methods, models, parallel
from ssl_jax.optim import optimizers
from ssl_jax.training import state as states
from ssl_jax.training import step
from ssl_jax.training.collapse import collapse_signals
from ssl_jax.training.gradient import micro_batched
from ssl_jax.training.probe import Probe

B, SIZE, CLASSES = 32, 16, 4


def make_method(encoder=None, bn_group=0):
    run = methods.Run(tiny.seen(2, SIZE), 10, B, num_examples=B, bn_group=bn_group)
    return methods.get("simclr")(
        encoder or tiny.Encoder(), run, temperature=0.2, hidden_dim=16, output_dim=8
    )


def host_batch(b=B):
    rng = np.random.Generator(np.random.PCG64(0))
    return {
        "views": rng.random((b, 2, SIZE, SIZE, 3), np.float32),
        "index": np.arange(b, dtype=np.int32),
        "label": (np.arange(b) % CLASSES).astype(np.int32),
    }


def build(method, mesh, *, microbatch=0, name="lars"):
    tx, schedule = optimizers.make(
        name, lr=0.5, lr_rule="constant", batch_size=B, warmup_steps=0, total_steps=10,
        weight_decay=1e-4,
    )  # fmt: skip
    probe = Probe(CLASSES)
    init = states.init_fn(method, tx, probe, host_batch(), seed=1)
    function = step.make_train_step(
        method, tx, schedule, probe, seed=1, mesh=mesh, microbatch=microbatch
    )
    return init, jax.jit(function)


def run(method, devices, steps=2, batch=None, **options):
    mesh = parallel.make_mesh(jax.devices()[:devices])
    with jax.set_mesh(mesh):
        init, function = build(method, mesh, **options)
        state = states.new_state(init, method.layout, mesh)
        for _ in range(steps):
            state, metrics = function(state, parallel.to_global(batch or host_batch(), mesh))
    return jax.device_get((state, metrics))


def state_gap(a, b):
    """Returns `gap` without the probe, because Adam divides the first gradient by its size."""
    return gap(a.replace(probe=()), b.replace(probe=()))


def gap(a, b):
    """Returns the largest difference of two trees, relative to the largest element of each leaf."""
    return max(
        float(np.abs(x - y).max() / max(np.abs(x).max(), 1e-3))
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
        if np.size(x)
    )


def test_eight_devices_give_the_step_of_one():
    one, eight = (run(make_method(), n, steps=1) for n in (1, 8))
    assert gap(one[1], eight[1]) < 1e-5  # loss, gradient norm, probe, accuracy
    # One LARS update from zero momentum, so this compares gradients, BatchNorm and trust ratios.
    assert state_gap(one[0], eight[0]) < 5e-5


@pytest.mark.parametrize("devices", [1, 8])
def test_micro_batches_give_the_gradient_of_the_whole_batch(devices):
    # A group has 8 rows: the views of a device's 4 images per micro-batch. BatchNorm over 2 rows
    # would be ill-conditioned.
    method, batch = make_method(bn_group=8), host_batch(128)
    whole, chunked = (run(method, devices, 1, batch, microbatch=m) for m in (0, 32))
    assert gap(whole[1], chunked[1]) < 1e-5
    assert state_gap(whole[0], chunked[0]) < 5e-5


def test_gradient_noise_is_unbiased():
    """The gradient of an example is the example: noise is the variance, signal the squared mean."""
    rng = np.random.default_rng(0)
    mean, spread = np.full(5, 0.5), np.array([1.0, 2.0, 0.5, 1.0, 3.0])
    mesh = parallel.make_mesh(jax.devices()[:2])
    value_and_grad = micro_batched(mesh, 4, True)

    @jax.jit
    def measure(x):
        return value_and_grad(
            lambda w, batch: ({"y": batch["index"] @ w}, {}),
            lambda w, outputs: (outputs["y"].mean(), ({}, {})),
            jnp.zeros(5),
            {"index": x},
        )

    estimates = []
    with jax.set_mesh(mesh):
        for _ in range(400):
            x = (mean + spread * rng.normal(size=(16, 5))).astype(np.float32)
            _, gradient, measured = measure(parallel.to_global({"x": x}, mesh)["x"])
            np.testing.assert_allclose(gradient, x.mean(0), rtol=1e-5, atol=1e-6)
            estimates.append([measured["gradient_noise"], measured["gradient_signal"]])
    noise, signal = np.mean(estimates, 0)
    error = np.std(estimates, 0) / np.sqrt(len(estimates))
    assert abs(noise - np.square(spread).sum()) < 4 * error[0]
    assert abs(signal - np.square(mean).sum()) < 4 * error[1]
    assert error[0] < 0.05 * noise
    assert error[1] < 0.1 * signal


def test_labels_affect_only_the_probe():
    batch = host_batch()
    shuffled = batch | {"label": batch["label"][::-1].copy()}
    (a, _), (b, _) = (run(make_method(), 1, batch=x) for x in (batch, shuffled))
    for field in ("params", "extra", "opt_state"):
        for x, y in zip(
            jax.tree.leaves(getattr(a, field)), jax.tree.leaves(getattr(b, field)), strict=True
        ):
            np.testing.assert_array_equal(x, y)
    assert gap(a.probe, b.probe) > 1e-3


def test_probe_ignores_missing_labels():
    probe = Probe(CLASSES)
    update, start, features = jax.jit(probe.update), probe.init(5), jnp.ones((3, 2, 5))
    state, metrics = update(start, features, jnp.array([-1, -1, -1]))
    assert float(metrics["probe_loss"]) == 0
    np.testing.assert_array_equal(state["params"]["kernel"], 0)
    _, metrics = update(start, features, jnp.array([0, -1, -1]))
    np.testing.assert_allclose(metrics["probe_loss"], np.log(CLASSES), rtol=1e-6)
    assert float(metrics["probe_accuracy"]) == 1  # untrained logits tie, argmax takes class 0


def test_probe_learns_and_gives_features_no_gradient():
    probe = Probe(2)
    update, start = jax.jit(probe.update), probe.init(2)
    x = jnp.stack([jnp.eye(2), jnp.eye(2)], 1)
    y = jnp.array([0, 1])

    def loss(x):
        return update(start, x, y)[1]["probe_loss"]

    np.testing.assert_array_equal(jax.grad(loss)(x), 0)
    state = start
    for _ in range(20):
        state, metrics = update(state, x, y)
    assert float(metrics["probe_accuracy"]) == 1


def test_logged_learning_rate_follows_the_schedule():
    _, metrics = run(make_method(), 1, steps=3)
    np.testing.assert_allclose(metrics["lr"], 0.5 * 0.5 * (1 + np.cos(np.pi * 2 / 10)), rtol=1e-6)


def test_collapse_signals_are_logged_unless_the_method_has_the_metric():
    def encode(params, extra, batch, key):
        return {"features": batch["views"][:, :, 0, 0] * params["scale"]}, {}

    def objective(params, extra, outputs, key, step):
        return outputs["features"].mean(), (extra, {"feature_std": jnp.float32(7)})

    method = methods.Method(
        init=lambda key, batch: ({"scale": jnp.ones((1, 1, 3))}, {}),
        encode=encode,
        objective=objective,
        features=lambda *_: None,
    )
    _, metrics = run(method, 1, steps=1)
    wanted = jax.jit(collapse_signals)(host_batch()["views"][:, :, 0, 0])
    assert metrics.keys() > wanted.keys()
    assert gap({k: metrics[k] for k in wanted}, wanted | {"feature_std": np.float32(7)}) < 1e-5


def compile_step(devices):
    method = make_method(models.get("resnet10", width=0.25, stem="cifar"))
    mesh = parallel.make_mesh(jax.devices()[:devices])
    with jax.set_mesh(mesh):
        init, function = build(method, mesh)
        state = states.abstract_state(init, method.layout, mesh)
        batch = {
            name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=parallel.rows(mesh))
            for name, x in parallel.to_global(host_batch(), mesh).items()
        }
        return function.lower(state, batch).compile()


def test_compiled_step_divides_the_work_and_moves_no_image():
    one, eight = compile_step(1), compile_step(8)
    ratio = eight.cost_analysis()["flops"] / one.cost_analysis()["flops"]
    assert abs(8 * ratio - 1) < 0.05, f"each of 8 devices does {ratio:.3f} of one device's FLOPs"
    text = eight.as_text()
    assert "all-to-all" not in text
    image_rows = SIZE * SIZE * 3 * 2  # elements of one example's two views
    for line in text.splitlines():
        match = re.search(r"= (.*?) (all-gather|collective-permute)(-start)?\(", line)
        for shape in re.findall(r"\[([\d,]+)\]", match.group(1) if match else ""):
            elements = np.prod([int(n) for n in shape.split(",")])
            assert elements < image_rows * B // 8, f"moves {shape}: {line.strip()[:200]}"


def test_state_is_created_on_all_devices_and_donated():
    method, mesh = make_method(), parallel.make_mesh()
    with jax.set_mesh(mesh):
        init, function = build(method, mesh)
        state = states.new_state(init, method.layout, mesh)
        assert all(len(x.sharding.device_set) == 8 for x in jax.tree.leaves(state))
        new, _ = jax.jit(function, donate_argnums=0)(state, parallel.to_global(host_batch(), mesh))
        same = jax.tree.map(lambda x, y: x.sharding == y.sharding, state, new)
    assert all(jax.tree.leaves(same))
    assert all(x.is_deleted() for x in jax.tree.leaves(state.params))


def test_gradient_is_finite_and_reaches_every_parameter():
    method, mesh = make_method(), parallel.make_mesh(jax.devices()[:1])
    init, _ = build(method, mesh)
    state = states.new_state(init, method.layout, mesh)
    # BatchNorm scales of zero stop the gradient, so all parameters are shifted first.
    params = jax.tree.map(lambda p: p + 0.05, state.params)

    def loss(params):
        key = jax.random.key(0)
        batch = {"views": jnp.asarray(host_batch()["views"]), "index": jnp.arange(B)}
        outputs, _ = method.encode(params, state.extra, batch, key)
        return method.objective(params, state.extra, outputs, key, state.step)[0]

    grads = jax.jit(jax.grad(loss))(params)
    for path, grad in jax.tree_util.tree_leaves_with_path(grads):
        assert np.isfinite(grad).all(), path
        assert optax.tree.norm(grad) > 0, path


def test_a_method_never_meets_the_labels_unless_the_training_is_supervised():
    """The method reads every label that it gets: its loss tells whether it got one."""

    def init(key, batch):
        return {"w": jnp.ones(())}, {}

    def encode(params, extra, batch, key):
        seen = batch.get("label", jnp.zeros(len(batch["index"]), jnp.int32))
        return {"z": params["w"] * batch["views"].mean((1, 2, 3, 4)) + 1000.0 * seen}, {}

    def objective(params, extra, outputs, key, step):
        label = outputs.get("label", jnp.zeros(len(outputs["z"]), jnp.int32))
        return outputs["z"].mean() + 10.0 * label.mean(), (extra, {})

    method = methods.Method(
        init, encode, objective, features=None, after_update=lambda params, extra, *_: extra
    )
    mesh, tx = parallel.make_mesh(jax.devices()[:1]), optax.sgd(0.1)
    batch, found = host_batch(), {}
    for supervised in (False, True):
        start = states.init_fn(method, tx, Probe(0), batch, seed=0, supervised=supervised)()
        function = step.make_train_step(
            method, tx, lambda _: 0.1, Probe(0), seed=0, mesh=mesh, supervised=supervised
        )
        with jax.set_mesh(mesh):
            _, metrics = jax.jit(function)(start, parallel.to_global(batch, mesh))
        found[supervised] = float(metrics["loss"])
    plain = batch["views"].mean((1, 2, 3, 4)).mean()
    assert found[False] == pytest.approx(plain, rel=1e-5)
    assert found[True] == pytest.approx(plain + 10 * batch["label"].mean(), rel=1e-5)
