import numpy as np
import pytest
from scipy import stats

from ssl_jax.evals import draws


def test_interval_equals_hand_worked_value():
    # Student's t for 4 degrees of freedom is 2.776; the standard deviation of 1..5 is 1.5811.
    assert draws.ci95([1, 2, 3, 4, 5]) == pytest.approx(2.776 * 1.5811 / 5**0.5, rel=1e-3)


def test_interval_equals_scipy():
    values = np.random.default_rng(0).normal(size=7)
    low, high = stats.t.interval(0.95, 6, loc=values.mean(), scale=stats.sem(values))
    assert draws.ci95(values) == pytest.approx((high - low) / 2, rel=1e-12)


def test_single_value_has_no_interval():
    one = {"accuracy": 0.5, "std": 0.0, "draws": [0.5]}
    assert draws.summary([0.5]) == one
    assert draws.summary([0.4, 0.6])["ci95"] == pytest.approx(12.706 * 0.1, rel=1e-3)


def test_codes_number_any_labels():
    classes, train, test = draws.codes(np.array([7, 2, 7, 40]), np.array([2, 40, 3, 99, 7]))
    assert classes.tolist() == [2, 7, 40]
    assert train.tolist() == [1, 0, 1, 2]
    assert test.tolist() == [0, 2, -1, -1, 1]


def test_moments_of_many_rows_keep_float32_precision():
    constant = np.full((300_000, 1), 0.1, np.float32)
    drawn = np.random.default_rng(0).exponential(size=(300_000, 1)).astype(np.float32)
    x = np.concatenate([constant, drawn], axis=1)
    mean, deviation = draws.moments(x)
    np.testing.assert_allclose(mean, x.mean(0, dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(deviation[1], x[:, 1].astype(np.float64).std(), rtol=1e-6)
    assert deviation[0] == 1, "a constant feature has no scale"
