"""The mixture against SciPy's densities, EM written out in NumPy, and a known mixture."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from ssl_jax.models import mixture

K, D, N, FLOOR = 3, 2, 7, 0.05
RNG = np.random.default_rng(0)
WEIGHT = np.array([0.2, 0.5, 0.3])
MEAN = RNG.normal(size=(K, D)) * 3
VARIANCE = RNG.uniform(0.2, 2, (K, D))
KEY = jax.random.key(4)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def statistics(weight=WEIGHT, mean=MEAN, variance=VARIANCE):
    first = weight[:, None] * mean
    second = weight[:, None] * (variance + mean**2)
    return mixture.Mixture(*map(jnp.asarray, (weight, first, second)))


def log_joint(x, weight=WEIGHT, mean=MEAN, variance=VARIANCE):
    """log p(component, x) [n, k] by SciPy; the v rows of an example share their component."""
    parts = [stats.multivariate_normal(m, np.diag(v)) for m, v in zip(mean, variance, strict=True)]
    rows = [[part.logpdf(row).sum() for part in parts] for row in x]
    return np.log(weight) + rows


@pytest.mark.parametrize(("views", "origin"), [(1, 0), (2, 0), (2, 1e4)])
def test_log_joint_equals_scipy(views, origin):
    x = RNG.normal(size=(N, views, D)) * 3
    components = mixture.gaussians(statistics(), FLOOR)
    for got, want in zip(components, (np.log(WEIGHT), MEAN, VARIANCE), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12)
    far = components._replace(mean=components.mean + origin)
    np.testing.assert_allclose(mixture.log_joint(far, x + origin), log_joint(x), rtol=1e-6)


def test_variances_have_a_floor():
    components = mixture.gaussians(statistics(variance=np.zeros((K, D))), FLOOR)
    np.testing.assert_allclose(components.variance, FLOOR)


@pytest.mark.parametrize("rate", [1.0, 0.3])
def test_update_is_a_step_of_em(rate):
    """At rate 1, one step of ordinary EM; at lower rates, the statistics are averaged."""
    x = RNG.normal(size=(N, 2, D)) * 3
    new, responsibilities = mixture.update(
        statistics(), jnp.asarray(x), jnp.asarray(rate), KEY, floor=FLOOR, min_share=0.1
    )
    r = special.softmax(log_joint(x), axis=1)
    np.testing.assert_allclose(responsibilities, r, atol=1e-12)
    mass, mean, variance = np.zeros(K), np.zeros((K, D)), np.zeros((K, D))
    for k in range(K):
        mass[k] = r[:, k].mean()
        mean[k] = (r[:, k, None] * x.mean(1)).sum(0) / r[:, k].sum()
        squared_deviation = np.square(x - mean[k]).mean(1)
        variance[k] = (r[:, k, None] * squared_deviation).sum(0) / r[:, k].sum()
    if rate == 1:
        got = mixture.gaussians(new, 1e-3)
        np.testing.assert_allclose(got.mean, mean)
        np.testing.assert_allclose(got.variance, np.maximum(variance, 1e-3))
    batch = statistics(mass, mean, variance)
    for a, old, b in zip(new, statistics(), batch, strict=True):
        np.testing.assert_allclose(a, (1 - rate) * old + rate * b, rtol=1e-10)


def test_components_start_at_different_examples_and_dead_ones_are_reseeded():
    x = jnp.asarray(RNG.normal(size=(N, 1, D)))
    options = {"rate": jnp.asarray(0.0), "key": KEY, "floor": FLOOR, "min_share": 0.1}
    first, _ = mixture.update(mixture.empty(K, D), x, **options)
    components = mixture.gaussians(first, 0.0)
    nearest = np.abs(np.asarray(x)[:, 0, None] - components.mean[None]).sum(-1).argmin(0)
    assert len(set(nearest)) == K
    np.testing.assert_allclose(components.mean, x[nearest, 0])
    np.testing.assert_allclose(components.variance, np.tile(x.var((0, 1)), (K, 1)))
    np.testing.assert_allclose(jnp.exp(components.log_weight), 1 / K)
    # 0.02 is less than a tenth of a third: only that component is re-seeded, and all are
    # normalised.
    weight = np.array([0.58, 0.02, 0.4])
    second, _ = mixture.update(statistics(weight), x, **options)
    components = mixture.gaussians(second, 0.0)
    np.testing.assert_allclose(components.mean[::2], MEAN[::2])
    assert np.isclose(x[:, 0], components.mean[1]).all(-1).any()
    want = np.array([0.58, 1 / K, 0.4])
    np.testing.assert_allclose(jnp.exp(components.log_weight), want / want.sum())


def test_known_mixture_is_recovered_from_a_stream():
    known = mixture.gaussians(statistics(mean=np.array([[-6, 0], [0, 5], [5, -2.0]])), FLOOR)

    @jax.jit
    def body(state, step):
        keys = jax.random.split(jax.random.fold_in(KEY, step))
        x = mixture.draw(known, keys[0], (64,))[:, None]
        rate = (step + 5.0) ** -0.6
        return mixture.update(state, x, rate, keys[1], floor=FLOOR, min_share=0.1)[0], None

    state, _ = jax.lax.scan(body, mixture.empty(K, D), jnp.arange(400))
    fitted = mixture.gaussians(state, FLOOR)
    match = np.abs(known.mean[:, None] - fitted.mean[None]).sum(-1).argmin(1)
    assert set(match) == set(range(K))
    for got, want, tolerance in zip(fitted, known, (0.15, 0.25, 0.3), strict=True):
        np.testing.assert_allclose(got[match], want, atol=tolerance)


def test_draws_have_the_moments_of_the_mixture():
    components = mixture.gaussians(statistics(), FLOOR)
    n = 40_000
    rows = mixture.draw(components, KEY, (n // 2, 2)).reshape(-1, D)
    mean = WEIGHT @ MEAN
    covariance = np.einsum("k,ki,kj->ij", WEIGHT, MEAN - mean, MEAN - mean)
    covariance += np.diag(WEIGHT @ VARIANCE)
    np.testing.assert_allclose(rows.mean(0), mean, atol=5 * np.sqrt(covariance.max() / n))
    np.testing.assert_allclose(np.cov(rows.T), covariance, atol=0.03 * covariance.max())
    one = mixture.sample(components, KEY, jnp.full(n, 2))
    np.testing.assert_allclose(one.mean(0), MEAN[2], atol=5 * np.sqrt(VARIANCE.max() / n))
    np.testing.assert_allclose(one.var(0), VARIANCE[2], rtol=0.05)
