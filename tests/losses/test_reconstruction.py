"""Losses of autoencoders against NumPy, SciPy and numerical integration."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats

from ssl_jax.losses import reconstruction

RNG = np.random.default_rng(0)


def test_cross_entropy_of_probabilities():
    x, logits = RNG.random((4, 5)), 3 * RNG.standard_normal((4, 5))
    p = scipy.special.expit(logits)
    with jax.enable_x64(True):
        got = reconstruction.cross_entropy(jnp.asarray(x), jnp.asarray(logits))
    np.testing.assert_allclose(got, -x * np.log(p) - (1 - x) * np.log(1 - p), rtol=1e-12)
    # A certain and wrong decoder has a large cost, not an infinite one.
    extreme = reconstruction.cross_entropy(jnp.ones(2), jnp.asarray([-200.0, 200.0]))
    np.testing.assert_allclose(extreme, [200, 0], atol=1e-6)


def test_emphasis_weighs_corrupted_components():
    error, corrupted = RNG.random((3, 2, 4)), RNG.random((3, 2, 4)) < 0.4
    got = reconstruction.emphasised(jnp.asarray(error), jnp.asarray(corrupted), 2.0, 0.25)
    for row, values, where in zip(got, error, corrupted, strict=True):
        want = 2.0 * sum(values[where]) + 0.25 * sum(values[~where])
        np.testing.assert_allclose(row, want, rtol=1e-6)


@pytest.mark.parametrize(("mean", "log_variance"), [(0.0, 0.0), (1.5, -3.0), (-0.3, 1.2), (4, -8)])
def test_divergence_from_the_standard_normal_is_the_integral(mean, log_variance):
    deviation = np.exp(log_variance / 2)
    q, p = scipy.stats.norm(mean, deviation), scipy.stats.norm()

    def density(x):
        return q.pdf(x) * (q.logpdf(x) - p.logpdf(x))

    edges = mean - 12 * deviation, mean + 12 * deviation
    want, _ = scipy.integrate.quad(density, *edges, epsabs=1e-12, limit=200)
    with jax.enable_x64(True):
        got = reconstruction.kl_to_standard_normal(jnp.float64(mean), jnp.float64(log_variance))
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-12)


def test_divergence_is_the_mean_over_draws():
    mean, log_variance, draws = 0.7, -1.0, 400_000
    x = RNG.normal(mean, np.exp(log_variance / 2), draws)
    ratio = scipy.stats.norm(mean, np.exp(log_variance / 2)).logpdf(x) - scipy.stats.norm.logpdf(x)
    got = reconstruction.kl_to_standard_normal(jnp.float32(mean), jnp.float32(log_variance))
    assert abs(got - ratio.mean()) < 5 * ratio.std() / np.sqrt(draws)


def test_free_bits_bound_each_group_from_below():
    # Means of the dimensions: 0.1, 0.3, 2.0, 0.0.
    divergence = jnp.asarray([[0.2, 0.1, 3.0, 0.0], [0.0, 0.5, 1.0, 0.0]])
    for free, group, want in [(0, 1, 2.4), (0.25, 1, 2.8), (0.5, 2, 2.5), (3, 4, 3), (0, 2, 2.4)]:
        got = reconstruction.free_bits(divergence, free, group)
        np.testing.assert_allclose(got, want, rtol=1e-6)
    gradient = jax.grad(lambda x: reconstruction.free_bits(x, 0.25))(divergence)
    np.testing.assert_allclose(gradient, [[0, 0.5, 0.5, 0]] * 2)  # one half: mean over two rows
