"""NPID's bank, constant Z and losses against a NumPy simulation."""

import jax
import jax.numpy as jnp
import linear
import numpy as np
import optax
import pytest
import tiny

from ssl_jax import parallel
from ssl_jax.methods import Run, npid
from ssl_jax.training import state as states
from ssl_jax.training import step
from ssl_jax.training.probe import Probe

B, N, PADDED_ROWS, K, STEPS, SEED = 8, 21, 24, 6, 5, 2
MOMENTUM, TEMPERATURE, PROXIMAL, RATE = 0.7, 0.2, 1.5, 0.5


def make(views=1, examples=N, dtype=jnp.float64, **options):
    run = Run(tiny.seen(views, 2), STEPS, B, examples)
    options = {
        "temperature": TEMPERATURE, "momentum": MOMENTUM, "noise_samples": K,
        "proximal": PROXIMAL, "output_dim": 3,
    } | options  # fmt: skip
    return npid.make(linear.Linear(dtype=dtype), run, **options)


def batches():
    """Batches of N images. An epoch ends within the fourth batch; one image occurs twice in it."""
    rows = linear.batches(STEPS, B, views=1, examples=N)
    rows[3]["index"][6] = rows[3]["index"][1]
    return rows


def noise(k):
    """The noise indices that the method draws at step k."""
    key = jax.random.fold_in(jax.random.key(SEED), k + 1)
    return np.asarray(jax.random.randint(jax.random.split(key)[1], (B, K), 0, N, jnp.int32))


def written_bank(extra):
    """All rows of the bank after a step, pending writes included."""
    bank, moved = extra["bank"].copy(), extra["moved"]
    for index, row in zip(moved["index"], moved["rows"], strict=True):
        if index < len(bank):
            bank[index] = row
    return bank


def embed(params, x):
    head = params["head"]["dense0"]
    return linear.unit(x @ params["encoder"]["dense"]["kernel"] @ head["kernel"] + head["bias"])


def objective(name, params, batch, bank, k, log_z=None):
    """Returns (loss, metrics, embeddings, log Z) of a step."""
    z, index = embed(params, linear.flat(batch["views"])[:, 0]), batch["index"]
    own = bank[index]
    positive = (z * own).sum(-1) / TEMPERATURE
    alignment = np.square(z - own).sum(-1).mean()
    metrics = {"alignment": alignment}
    if name == "softmax":
        logits = z @ bank[:N].T / TEMPERATURE
        p = np.exp(positive) / np.exp(logits).sum(-1)
        loss = -np.log(p).mean()
        metrics["contrastive_accuracy"] = (logits.argmax(-1) == index).mean()
    else:
        negative = np.einsum("bd,bkd->bk", z, bank[noise(k)]) / TEMPERATURE
        every = np.c_[positive, negative]
        log_z = np.log(np.exp(every).mean() * N) if log_z is None else log_z
        p, q = (np.exp(logit) / np.exp(log_z) for logit in (positive, negative))
        metrics["data_loss"] = -np.log(p / (p + K / N)).mean()
        metrics["noise_loss"] = -np.log(1 - q / (q + K / N)).sum(1).mean()
        loss = metrics["data_loss"] + metrics["noise_loss"]
    metrics["own_probability"] = p.mean()
    return loss + PROXIMAL * alignment, metrics, z, log_z


def trajectory(method, rows, devices):
    """Trains in float64 by plain SGD.

    Returns:
      ([(state before the step, metrics of the step)], last state).
    """
    tx, probe = optax.sgd(RATE), Probe(0)
    mesh = parallel.make_mesh(jax.devices()[:devices])
    init = states.init_fn(method, tx, probe, rows[0], seed=SEED)
    function = jax.jit(
        step.make_train_step(method, tx, lambda _: jnp.zeros(()), probe, seed=SEED, mesh=mesh)
    )
    history = []
    with jax.set_mesh(mesh):
        state = states.new_state(lambda: jax.tree.map(to_float64, init()), method.layout, mesh)
        assert len(state.extra["bank"].addressable_shards[0].data) == PADDED_ROWS // devices
        for batch in rows:
            before = jax.device_get(state)
            state, metrics = function(state, parallel.to_global(batch, mesh))
            history.append((before, jax.device_get(metrics)))
    return history, jax.device_get(state)


def to_float64(x):
    return x.astype(np.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x


@pytest.mark.parametrize(("name", "devices"), [("nce", 1), ("nce", 8), ("softmax", 8)])
def test_bank_and_loss_equal_the_simulation(name, devices):
    rows = [jax.tree.map(to_float64, batch) for batch in batches()]
    with jax.enable_x64(True):
        history, last = trajectory(make(loss=name), rows, devices)
    states = [state for state, _ in history] + [last]
    bank, log_z = written_bank(history[0][0].extra), None
    np.testing.assert_allclose(np.linalg.norm(bank, axis=-1), 1, rtol=1e-6)
    for k, (state, metrics) in enumerate(history):
        loss, expected, z, log_z = objective(name, state.params, rows[k], bank, k, log_z)
        np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-9)
        for key, value in expected.items():
            np.testing.assert_allclose(metrics[key], value, rtol=1e-9, err_msg=key)
        # The parameters moved by the gradient, in which bank and Z are constants.
        before, after = (s.params["head"]["dense0"]["bias"] for s in states[k : k + 2])
        derivatives = [
            numeric_derivative(name, state.params, i, rows[k], bank, k, log_z)
            for i in range(len(before))
        ]
        np.testing.assert_allclose((before - after) / RATE, derivatives, rtol=1e-6, atol=1e-8)
        old = bank.copy()
        for i, v in zip(rows[k]["index"], z, strict=True):  # a repeated image: the second counts
            bank[i] = linear.unit(MOMENTUM * old[i] + (1 - MOMENTUM) * v)
        np.testing.assert_allclose(written_bank(states[k + 1].extra), bank, atol=1e-9)
        if name == "nce":
            np.testing.assert_allclose(states[k + 1].extra["log_z"], log_z, rtol=1e-9)


def numeric_derivative(name, params, i, batch, bank, k, log_z):
    """Derivative of the loss by entry i of the head's bias, by central differences."""
    head = params["head"]["dense0"]

    def loss(shift):
        bias = head["bias"] + shift * np.eye(len(head["bias"]))[i]
        moved = params | {"head": {"dense0": head | {"bias": bias}}}
        return objective(name, moved, batch, bank, k, log_z)[0]

    return (loss(1e-5) - loss(-1e-5)) / 2e-5


@pytest.mark.parametrize("name", ["nce", "softmax"])
def test_bank_receives_no_gradient(name):
    method, batch, key = make(loss=name), batches()[0], jax.random.key(0)

    @jax.jit
    def gradient():
        params, extra = method.init(key, batch)

        def loss(bank, rows):
            changed = extra | {"bank": bank, "moved": extra["moved"] | {"rows": rows}}
            outputs, _ = method.encode(params, changed, batch, key)
            return method.objective(params, changed, outputs, key, jnp.zeros((), jnp.int32))[0]

        return jax.grad(loss, argnums=(0, 1))(extra["bank"], extra["moved"]["rows"])

    with jax.enable_x64(True):
        assert all(not np.any(g) for g in jax.device_get(gradient()))


def test_step_writes_the_bank_in_place():
    method, batch = make(examples=2**16, dtype=jnp.float32), batches()[0]
    tx, probe, mesh = optax.sgd(RATE), Probe(0), parallel.make_mesh(jax.devices()[:1])
    state = jax.eval_shape(states.init_fn(method, tx, probe, batch, seed=SEED))
    function = step.make_train_step(
        method, tx, lambda _: jnp.zeros(()), probe, seed=SEED, mesh=mesh
    )  # fmt: skip
    compiled = jax.jit(function, donate_argnums=0).lower(state, batch).compile()
    bank = state.extra["bank"]
    assert compiled.memory_analysis().temp_size_in_bytes < bank.size * bank.dtype.itemsize / 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"views": 2}, "takes 1 view, got 2"),
        ({"loss": "infonce"}, "unknown loss 'infonce'; choose one of: nce, softmax"),
        ({"noise_samples": 0}, "noise_samples must be at least 1, got 0"),
    ],
)
def test_invalid_settings_raise(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)
