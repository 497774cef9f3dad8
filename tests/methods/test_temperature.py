"""Schedules of the temperature, and losses and gradients at the temperature of a step."""

import jax
import jax.numpy as jnp
import linear
import numpy as np
import pytest
import tiny

from ssl_jax.methods import Run, _temperature, moco, moco_v3, simclr, simclr_v2

B, STEPS = 8, 10
RUN = Run(tiny.seen(2, 2), STEPS, B, 16)
COSINE = {"temperature": 0.5, "temperature_schedule": "cosine", "temperature_end": 0.1}


def temperatures(**options):
    fields = {"schedule": "cosine", "end": 0.1, "periods": 0.5} | options
    schedule = _temperature.make(0.5, STEPS, **fields)
    return [float(jax.jit(schedule.at)(jnp.int32(step))) for step in range(STEPS)]


def test_cosine_falls_from_start_to_end_over_the_run():
    want = [0.1 + 0.4 * (1 + np.cos(np.pi * s / STEPS)) / 2 for s in range(STEPS)]
    np.testing.assert_allclose(temperatures(), want, rtol=1e-6)
    assert temperatures()[0] == pytest.approx(0.5)
    assert temperatures()[5] == pytest.approx(0.3)


def test_cosine_of_the_paper_swings():
    # Their code: minimum + (maximum - minimum) / 2 * (1 + cos(pi * epoch / t_max)), t_max 200
    # epochs of 2000, at every 200th epoch.
    swing = temperatures(periods=5)
    np.testing.assert_allclose(swing, [0.5, 0.1] * 5, rtol=1e-5)
    between = _temperature.make(1.0, 2000, schedule="cosine", end=0.1, periods=5)
    want = [0.1 + 0.9 / 2 * (1 + np.cos(np.pi * epoch / 200)) for epoch in (30, 777, 1999)]
    got = [float(between.at(jnp.int32(epoch))) for epoch in (30, 777, 1999)]
    np.testing.assert_allclose(got, want, rtol=1e-4)


def test_log_falls_with_the_natural_logarithm_of_the_step():
    want = [0.5 / (1 + np.log(1 + s)) for s in range(STEPS)]
    np.testing.assert_allclose(temperatures(schedule="log"), want, rtol=1e-6)


def test_a_constant_temperature_stays_a_python_number():
    schedule = _temperature.make(0.5, STEPS, schedule="constant", end=0.0, periods=0.0)
    assert schedule.at(3) == 0.5
    assert type(schedule.at(3)) is float
    assert schedule.apply(lambda z, temperature: (temperature, {}), 3, None) == (0.5, {})


def rows(seed=0):
    return np.random.default_rng(seed).normal(size=(B, 2, 4))


def nt_xent(z, temperature):
    z = z.reshape(2 * B, -1)
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    logits = z @ z.T / temperature
    np.fill_diagonal(logits, -np.inf)
    positive = logits[np.arange(2 * B), np.arange(2 * B) ^ 1]
    return np.mean(np.log(np.exp(logits).sum(1)) - positive)


def info_nce(query, key, negatives, temperature):
    query, key, negatives = (
        x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (query, key, negatives)
    )
    positive = (query * key).sum(-1) / temperature
    total = np.exp(positive) + np.exp(query @ negatives.T / temperature).sum(1)
    return np.mean(np.log(total) - positive)


def central_differences(loss, x, places):
    slopes = []
    for place in places:
        ends = []
        for step in (1e-5, -1e-5):
            moved = x.copy()
            moved.flat[place] += step
            ends.append(loss(moved))
        slopes.append((ends[0] - ends[1]) / 2e-5)
    return slopes


@pytest.mark.parametrize("schedule", ["cosine", "log"])
@pytest.mark.parametrize("make", [simclr.make, simclr_v2.make])
def test_simclr_has_the_loss_and_the_gradient_of_each_step(make, schedule):
    method = make(linear.Linear(), RUN, output_dim=4, **COSINE | {"temperature_schedule": schedule})
    z = rows()

    @jax.jit
    def step_of(z, step):
        def loss(z):
            value, (_, metrics) = method.objective({}, {}, {"z": z}, jax.random.key(0), step)
            return value, metrics

        return jax.value_and_grad(loss, has_aux=True)(z)

    with jax.enable_x64(True):
        results = [step_of(jnp.asarray(z), jnp.int32(step)) for step in (0, 4, 9)]
    for step, ((value, metrics), gradient) in zip((0, 4, 9), results, strict=True):
        now = temperatures(schedule=schedule)[step]
        assert float(metrics["temperature"]) == pytest.approx(now, rel=1e-6)
        # The schedule computes in float32; the loss is compared at the very same temperature.
        now = float(metrics["temperature"])
        assert float(value) == pytest.approx(nt_xent(z, now), rel=1e-10)
        want = central_differences(lambda z, now=now: nt_xent(z, now), z, (0, 13, 37))
        np.testing.assert_allclose(np.asarray(gradient).flat[[0, 13, 37]], want, rtol=1e-6)


@pytest.mark.parametrize("step", [0, 4, 9])
def test_moco_has_the_temperature_of_the_step(step):
    method = moco.make(linear.Linear(), RUN, queue_size=2 * B, output_dim=4, **COSINE)
    params, extra = method.init(jax.random.key(0), linear.batches(1, B)[0])
    z = rows(1)
    outputs = {"query": jnp.asarray(z[:, 0]), "key": jnp.asarray(z[:, 1])}
    value, (_, metrics) = method.objective(params, extra, outputs, jax.random.key(0), step)
    now, queue = temperatures()[step], np.asarray(extra["queue"], np.float64).reshape(2 * B, 4)
    assert float(value) == pytest.approx(info_nce(z[:, 0], z[:, 1], queue, now), rel=1e-5)
    assert float(metrics["temperature"]) == pytest.approx(now)


@pytest.mark.parametrize("step", [0, 9])
def test_moco_v3_scales_its_loss_by_the_temperature_of_the_step(step):
    method = moco_v3.make(linear.Linear(), RUN, hidden_dim=4, output_dim=4, **COSINE)
    params, extra = method.init(jax.random.key(0), linear.batches(1, B)[0])
    q, k, now, total = rows(1), rows(2), temperatures()[step], 0.0
    for a, b in ((0, 1), (1, 0)):
        query, key = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (q[:, a], k[:, b]))
        logits = query @ key.T / now
        total += np.mean(np.log(np.exp(logits).sum(1)) - np.diag(logits))
    outputs = {"prediction": jnp.asarray(q), "target": jnp.asarray(k)}
    value, (_, metrics) = method.objective(params, extra, outputs, jax.random.key(0), step)
    assert float(value) == pytest.approx(2 * now * total, rel=1e-5)
    assert float(metrics["temperature"]) == pytest.approx(now)


def test_a_run_logs_the_temperature_of_its_steps():
    method = simclr.make(linear.Linear(), RUN, output_dim=4, **COSINE)
    history, _ = linear.trajectory(method, linear.batches(1, B) * 3)
    got = [float(metrics["temperature"]) for _, metrics in history]
    np.testing.assert_allclose(got, temperatures()[:3], rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature_schedule": "linear"}, "choose one of: constant, cosine, log"),
        ({"temperature_end": 0.01}, "takes the temperature to 0.01, .* exact only from 0.0149"),
        ({"temperature_end": -1.0}, "takes the temperature to -1"),
        ({"temperature_end": float("nan")}, "takes the temperature to"),
        ({"temperature": float("inf")}, "takes the temperature to"),
        ({"temperature_periods": 0.0}, "temperature_periods must be a finite number above 0"),
        (
            {"temperature_schedule": "log", "temperature": 0.04},
            r"takes the temperature to 0.01211, .* raise method.temperature or shorten the run",
        ),
        (
            {"loss": "hard_negatives", "concentration": 9.0, "temperature_end": 0.14},
            "exact only from 0.1482",
        ),
    ],
)
def test_schedules_below_the_lowest_temperature_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        simclr.make(linear.Linear(), RUN, **COSINE | options)


def test_a_schedule_may_end_at_the_lowest_temperature():
    simclr.make(linear.Linear(), RUN, **COSINE | {"temperature_end": 0.0149})
    # The concentration counts for its own loss only.
    options = {"concentration": 9.0, "temperature_end": 0.1}
    simclr.make(linear.Linear(), RUN, **COSINE | options)
