"""Restricted Boltzmann machines against sums over all their states."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from ssl_jax.models import dbn, options

D, F = 3, 2
VISIBLE = np.array(list(itertools.product((0.0, 1.0), repeat=D)))
HIDDEN = np.array(list(itertools.product((0.0, 1.0), repeat=F)))


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture
def machine():
    rng = np.random.default_rng(4)
    return {
        "kernel": 1.5 * rng.standard_normal((D, F)),
        "hidden_bias": rng.standard_normal(F),
        "visible_bias": rng.standard_normal(D),
    }


def energy(machine, v, h, kind):
    """Energy of one state shift its definition."""
    visible_energy = -sum(a * x for a, x in zip(machine["visible_bias"], v, strict=True))
    if kind == "gaussian":
        visible_energy = sum(
            (x - a) ** 2 / 2 for a, x in zip(machine["visible_bias"], v, strict=True)
        )
    hidden = sum(c * y for c, y in zip(machine["hidden_bias"], h, strict=True))
    pairs = sum(v[i] * machine["kernel"][i, j] * h[j] for i in range(D) for j in range(F))
    return visible_energy - hidden - pairs


def weights(machine, v, kind):
    """exp(-energy) of v with each hidden state."""
    return np.array([np.exp(-energy(machine, v, h, kind)) for h in HIDDEN])


def visible_states(kind):
    return VISIBLE if kind == "bernoulli" else np.random.default_rng(1).standard_normal((5, D))


@pytest.mark.parametrize("kind", options.VISIBLE)
def test_free_energy_and_hidden_units_sum_over_all_hidden_states(machine, kind):
    v = visible_states(kind)
    table = np.stack([weights(machine, row, kind) for row in v])
    free_energy = dbn.free_energy(machine, v, kind, jnp.float64)
    np.testing.assert_allclose(free_energy, -np.log(table.sum(1)), rtol=1e-12)
    p = table @ HIDDEN / table.sum(1, keepdims=True)
    np.testing.assert_allclose(dbn.hidden(machine, v, jnp.float64), p, rtol=1e-12)


def test_expected_visible_units_given_hidden(machine):
    table = np.exp([[-energy(machine, v, h, "bernoulli") for v in VISIBLE] for h in HIDDEN])
    p = table @ VISIBLE / table.sum(1, keepdims=True)
    expected = dbn.expected(machine, HIDDEN, "bernoulli", jnp.float64)
    np.testing.assert_allclose(expected, p, rtol=1e-12)
    # The mean of a Gaussian is the minimum of its energy: slope 0 and curvature 1.
    for h, mean in zip(HIDDEN, dbn.expected(machine, HIDDEN, "gaussian", jnp.float64), strict=True):
        for step in np.eye(D):
            up, there, down = (
                energy(machine, mean + shift * step, h, "gaussian") for shift in (1e-3, 0, -1e-3)
            )
            np.testing.assert_allclose(up, down, atol=1e-12)
            np.testing.assert_allclose(up + down - 2 * there, 1e-6, rtol=1e-6)


def test_gibbs_step_has_the_exact_transition_probabilities(machine):
    n, start = 100_000, VISIBLE[5]
    keys = jax.random.split(jax.random.key(7), n)
    samples = dbn.gibbs(machine, keys, jnp.tile(start, (n, 1)), "bernoulli", jnp.float64)
    counts = np.bincount((np.asarray(samples) @ (4, 2, 1)).astype(int), minlength=len(VISIBLE))
    given_v = weights(machine, start, "bernoulli")
    given_h = np.array([[weights(machine, v, "bernoulli")[j] for v in VISIBLE] for j in range(4)])
    given_h /= given_h.sum(1, keepdims=True)
    p = given_v / given_v.sum() @ given_h
    assert stats.chisquare(counts, n * p).pvalue > 1e-3


def test_gibbs_step_of_gaussian_units_has_the_moments_of_the_mixture(machine):
    n, start = 200_000, np.array([0.5, -1.0, 0.2])
    keys = jax.random.split(jax.random.key(3), n)
    v = dbn.gibbs(machine, keys, jnp.tile(start, (n, 1)), "gaussian", jnp.float64)
    p = weights(machine, start, "gaussian")
    means = machine["visible_bias"] + HIDDEN @ machine["kernel"].T
    mean = p @ means / p.sum()
    covariance = np.eye(D) + np.cov(means.T, aweights=p, ddof=0)
    deviation = np.sqrt(np.diag(covariance) / n)
    np.testing.assert_array_less(np.abs(np.mean(v, 0) - mean), 4 * deviation)
    np.testing.assert_allclose(np.cov(v.T), covariance, atol=0.03)


@pytest.mark.parametrize("kind", options.VISIBLE)
def test_chain_does_not_depend_on_its_neighbours(machine, kind):
    keys, v = jax.random.split(jax.random.key(0), 5), visible_states(kind)[:5]
    many = dbn.gibbs(machine, keys, v, kind, jnp.float64)
    one = dbn.gibbs(machine, keys[3:4], v[3:4], kind, jnp.float64)
    np.testing.assert_allclose(many[3:4], one, rtol=1e-12)
    assert len(np.unique(many, axis=0)) > 1


def test_dbn_returns_the_probabilities_of_all_machines():
    model = dbn.DBN(widths=(5, 4), visible="gaussian", sigma=0.5, dtype=jnp.float64)
    images = np.random.default_rng(2).random((3, 2, 2, 3))
    probabilities, variables = model.init_with_output(jax.random.key(0), images, False)
    v = images.reshape(3, -1)
    v = (v - v.mean(1, keepdims=True)) / (0.5 * (v.std(1, keepdims=True) + 1e-3))
    for i, columns in enumerate((slice(0, 5), slice(5, 9))):
        weights = jax.device_get(variables["params"][f"rbm{i}"])
        v = 1 / (1 + np.exp(-(v @ weights["kernel"] + weights["hidden_bias"])))
        np.testing.assert_allclose(probabilities[:, columns], v, rtol=1e-12)


def test_pixels_are_standardised_for_gaussian_units():
    images = np.random.default_rng(2).random((3, 2, 2, 3))
    np.testing.assert_array_equal(dbn.pixels(images, "bernoulli", 3.0), images.reshape(3, -1))
    assert (dbn.pixels(jnp.full((1, 2, 2, 3), 0.25), "gaussian", 1.0) == 0).all()


@pytest.mark.parametrize("options", [{"visible": "poisson"}, {"widths": ()}])
def test_invalid_networks_raise(options):
    with pytest.raises(ValueError, match="DBN with widths"):
        dbn.DBN(**options).init(jax.random.key(0), jnp.zeros((2, 2, 2, 3)), True)
