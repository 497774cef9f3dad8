"""Contrastive divergence: textbook gradient, exact likelihoods, chains against a simulation."""

import itertools

import jax
import jax.numpy as jnp
import linear
import numpy as np
import optax
import pytest
import tiny

from ssl_jax import parallel
from ssl_jax.methods import Run, rbm
from ssl_jax.models import dbn, options
from ssl_jax.training import state as states
from ssl_jax.training import step
from ssl_jax.training.probe import Probe

B, STEPS, SIZE = 8, 6, 2
NAMES = ("rbm0", "rbm1")


def make(
    *,
    widths=(5, 4),
    visible="gaussian",
    steps=STEPS,
    batch=B,
    views=1,
    dtype=jnp.float64,
    **options,
):
    run = Run(tiny.seen(views, SIZE), steps, batch, num_examples=batch)
    return rbm.make(dbn.DBN(widths, visible, 0.5, dtype), run, **options)


def to_float64(tree):
    return jax.tree.map(
        lambda x: x.astype(np.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree
    )


def rows(count=STEPS, b=B):
    batches = [to_float64(batch) for batch in linear.batches(count, b, views=1)]
    return [batch | {"views": 1 / (1 + np.exp(-batch["views"]))} for batch in batches]


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x)))


def chain(machine, keys, v, kind, steps):
    for k in range(steps):
        folded = jax.vmap(lambda key, k=k: jax.random.fold_in(key, k))(keys)
        v = dbn.gibbs(machine, folded, v, kind, jnp.float64)
    return np.asarray(v)


def statistics(machine, v):
    """Means over rows of v, of p(h | v) and of their outer product."""
    p = sigmoid(v @ machine["kernel"] + machine["hidden_bias"])
    return {"kernel": v.T @ p / len(v), "hidden_bias": p.mean(0), "visible_bias": v.mean(0)}


@pytest.mark.parametrize("machine", [0, 1])
@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("visible", options.VISIBLE)
def test_gradient_is_contrastive_divergence(visible, persistent, machine):
    kind = "bernoulli" if machine else visible
    with jax.enable_x64(True):
        method = make(visible=visible, persistent=persistent, gibbs_steps=3)
        batch, keys = rows()[0], jax.random.split(jax.random.key(9))
        params, extra = to_float64(method.init(jax.random.key(1), batch))
        extra["machine"] = jnp.int32(machine)
        rng = np.random.default_rng(0)
        params, extra["stack"] = (
            jax.tree.map(lambda x: x + rng.standard_normal(x.shape), tree)
            for tree in (params, extra["stack"])
        )

        def loss(params):
            outputs, _ = method.encode(params, extra, batch, keys[0])
            return method.objective(params, extra, outputs, keys[1], jnp.int32(0))

        (_, (after, metrics)), grads = jax.value_and_grad(loss, has_aux=True)(params)
        weights = jax.device_get(params["encoder"][NAMES[machine]])
        v = np.asarray(dbn.pixels(batch["views"][:, 0], visible, 0.5))
        if machine:
            below = jax.device_get(extra["stack"]["rbm0"])
            v = sigmoid(v @ below["kernel"] + below["hidden_bias"])
        if persistent:
            start, own = extra["chains"][NAMES[machine]], jax.random.split(keys[1], B)
        else:
            start, own = v, jax.vmap(lambda i: jax.random.fold_in(keys[0], i))(batch["index"])
        samples = chain(weights, own, start, kind, 3)
    data, model = statistics(weights, v), statistics(weights, samples)
    for name, gradient in grads["encoder"][NAMES[machine]].items():
        np.testing.assert_allclose(gradient, model[name] - data[name], atol=1e-12, err_msg=name)
    for gradient in jax.tree.leaves(grads["encoder"][NAMES[1 - machine]]):
        assert not gradient.any()
    if persistent:
        np.testing.assert_allclose(after["chains"][NAMES[machine]], samples, rtol=1e-12)
    up = sigmoid(v @ weights["kernel"] + weights["hidden_bias"]) @ weights["kernel"].T
    down = up + weights["visible_bias"]
    down = sigmoid(down) if kind == "bernoulli" else down
    np.testing.assert_allclose(metrics["reconstruction_error"], np.square(v - down).mean())
    assert metrics["machine"] == machine


@pytest.mark.parametrize(("persistent", "largest_divergence"), [(False, 0.06), (True, 0.03)])
def test_learns_a_distribution_with_known_likelihood(persistent, largest_divergence):
    """Sums the divergence from the data's distribution over all 16 states of 4 binary pixels."""
    patterns = np.array(list(itertools.product((0.0, 1.0), repeat=4)), np.float32)
    p = np.exp(2 * (patterns[:, 0] == patterns[:, 3]) + 2 * (patterns[:, 1] != patterns[:, 2]))
    p /= p.sum()
    counts = np.round(p * 512).astype(int)
    data = np.repeat(patterns, counts, axis=0)
    p, b = counts / counts.sum(), len(data)
    method = make(
        widths=(8,),
        visible="bernoulli",
        steps=1500,
        batch=b,
        persistent=persistent,
        dtype=jnp.float32,
    )
    batch = {"views": data.reshape(b, 1, 2, 2, 1), "index": np.arange(b, dtype=np.int32)}
    tx, mesh = (
        optax.adam(optax.cosine_decay_schedule(0.03, 1500)),
        parallel.make_mesh(jax.devices()[:1]),
    )
    init = states.init_fn(method, tx, Probe(0), batch, seed=1)
    train = step.make_train_step(method, tx, lambda _: jnp.zeros(()), Probe(0), seed=1, mesh=mesh)
    state = jax.jit(lambda s: jax.lax.fori_loop(0, 1500, lambda _, s: train(s, batch)[0], s))(
        jax.jit(init)()
    )
    weights = state.extra["stack"]["rbm0"]
    logits = -dbn.free_energy(weights, jnp.asarray(patterns), "bernoulli", jnp.float32)
    divergence = (p * (np.log(p) - np.asarray(jax.nn.log_softmax(logits)))).sum()
    uniform = (p * (np.log(p) + np.log(16))).sum()
    assert uniform > 0.5
    assert 0 <= divergence < largest_divergence, divergence


def trajectory(method, devices=1, microbatch=0, tx=None):
    tx, mesh = tx or optax.sgd(0.1), parallel.make_mesh(jax.devices()[:devices])
    history = []
    init = states.init_fn(method, tx, Probe(0), rows()[0], seed=2)
    train = jax.jit(
        step.make_train_step(
            method,
            tx,
            lambda _: jnp.zeros(()),
            Probe(0),
            seed=2,
            mesh=mesh,
            microbatch=microbatch,
        )
    )
    with jax.set_mesh(mesh):
        state = states.new_state(lambda: to_float64(init()), method.layout, mesh)
        for name, chains in state.extra.get("chains", {}).items():
            assert len(chains.addressable_shards[0].data) == B // devices, name
        for batch in rows():
            history.append(jax.device_get(state))
            state, _ = train(state, parallel.to_global(batch, mesh))
    return [*history, jax.device_get(state)]


def test_persistent_chains_are_the_same_on_8_devices():
    with jax.enable_x64(True):
        method = make(persistent=True, visible="bernoulli")
        one, eight = trajectory(method)[-1], trajectory(method, devices=8, microbatch=8)[-1]
    for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(eight), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-9)


def test_machines_learn_in_turn_and_then_stay_fixed():
    with jax.enable_x64(True):
        method = make()
        images = rows()[0]["views"][:, 0]
        # Weight decay and Adam's momentum also move parameters that have no gradient.
        history = trajectory(method, tx=optax.adamw(0.1, weight_decay=0.1))
        features = [np.asarray(method.features(s.params, s.extra, images)) for s in history]
    assert [int(s.extra["machine"]) for s in history] == [0, 0, 0, 1, 1, 1, 1]
    for k, state in enumerate(history):
        learning = NAMES[0 if k <= 3 else 1]  # the machine that was copied after the last step
        for x, y in zip(
            jax.tree.leaves(state.extra["stack"][learning]),
            jax.tree.leaves(state.params["encoder"][learning]),
            strict=True,
        ):
            np.testing.assert_array_equal(x, y)
        if k > 3:
            for x, y in zip(
                jax.tree.leaves(state.extra["stack"]["rbm0"]),
                jax.tree.leaves(history[3].extra["stack"]["rbm0"]),
                strict=True,
            ):
                np.testing.assert_array_equal(x, y)
            moved = (
                state.params["encoder"]["rbm0"]["kernel"]
                - history[3].params["encoder"]["rbm0"]["kernel"]
            )
            assert moved.any()
        assert (features[k][:, 5:] == 0).all() == (k < 3)
        assert method.modules(state.params, state.extra)[0]["encoder"] is state.extra["stack"]
    np.testing.assert_array_equal(features[4][:, :5], features[6][:, :5])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"views": 2}, "1 view"),
        ({"gibbs_steps": 0}, "gibbs_steps must be at least 1, got 0"),
        ({"steps": 1}, "2 machines need at least one step each, but the run has 1"),
    ],
)
def test_invalid_settings_raise(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_another_encoder_raises():
    run = Run(tiny.seen(1, SIZE), STEPS, B, num_examples=B)
    with pytest.raises(ValueError, match="this method trains a stack"):
        rbm.make(tiny.Encoder(), run)
