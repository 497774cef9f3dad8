"""Barlow Twins and VICReg against their equations in float64."""

import checks
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import losses

B, D = 16, 6
# Columns of different widths, and views that agree in part. VICReg's hinge is active for some
# columns.
Z = checks.rows(B, 1, D) * np.linspace(0.1, 1.2, D) + 0.3 * checks.rows(B, 2, D, seed=1)


def _barlow_sums(z, epsilon=1e-5):
    """(diagonal, off-diagonal) sums of equation 1, one correlation at a time."""
    a, b = z[:, 0] - z[:, 0].mean(0), z[:, 1] - z[:, 1].mean(0)
    on = off = 0.0
    for i in range(z.shape[-1]):
        for j in range(z.shape[-1]):
            lengths = np.mean(a[:, i] ** 2) + epsilon, np.mean(b[:, j] ** 2) + epsilon
            c = np.mean(a[:, i] * b[:, j]) / np.sqrt(lengths[0] * lengths[1])
            if i == j:
                on += (1 - c) ** 2
            else:
                off += c**2
    return on, off


def _barlow(z):
    on, off = _barlow_sums(z)
    return on + 0.02 * off


def _vicreg_terms(z):
    x, y = z[:, 0], z[:, 1]
    n, d = x.shape
    invariance = sum(np.sum((x[i] - y[i]) ** 2) for i in range(n)) / n / d
    variance = covariance = 0.0
    for view in (x, y):
        matrix = np.cov(view, rowvar=False, ddof=1)
        for i in range(d):
            variance += max(0, 1 - np.sqrt(matrix[i, i] + 1e-4)) / d / 2
            covariance += sum(matrix[i, j] ** 2 for j in range(d) if j != i) / d
    return invariance, variance, covariance


def _vicreg(z):
    return np.dot(_vicreg_terms(z), (25, 25, 1))


def _barlow_loss(z):
    return losses.barlow_twins(z, lambda_=0.02)


def test_barlow_twins_equals_the_equation():
    on, off = _barlow_sums(Z)
    checks.assert_equals_oracle(
        _barlow_loss, _barlow, Z, metrics={"on_diagonal": on, "off_diagonal": off}
    )


def test_barlow_twins_equals_numpy_s_correlation():
    z = 1e4 * Z  # large enough for epsilon to be negligible
    c = np.corrcoef(z[:, 0], z[:, 1], rowvar=False)[:D, D:]
    on = np.square(1 - np.diag(c)).sum()
    off = np.square(c).sum() - np.square(np.diag(c)).sum()
    loss, _ = jax.jit(losses.barlow_twins)(z.astype(np.float32))
    assert float(loss) == pytest.approx(on + 0.005 * off, rel=1e-5)


def test_vicreg_equals_the_equations():
    invariance, variance, covariance = _vicreg_terms(Z)
    deviations = Z.std(0, ddof=1)
    assert deviations.min() < 0.9 < 1.1 < deviations.max()
    metrics = {"invariance": invariance, "variance": variance, "covariance": covariance}
    checks.assert_equals_oracle(losses.vicreg, _vicreg, Z, metrics=metrics)


def test_vicreg_weighs_its_terms():
    z = jnp.asarray(Z, jnp.float32)
    loss, terms = jax.jit(losses.vicreg)(z, sim=2.0, std=3.0, cov=4.0)
    want = 2 * terms["invariance"] + 3 * terms["variance"] + 4 * terms["covariance"]
    assert float(loss) == pytest.approx(float(want), rel=1e-6)


def test_values_in_a_collapse():
    z = jnp.full((B, 2, D), 0.7)
    assert jax.jit(losses.barlow_twins)(z)[0] == pytest.approx(D)
    loss, terms = jax.jit(losses.vicreg)(z)
    assert terms == {
        "invariance": 0, "variance": pytest.approx(0.99), "covariance": pytest.approx(0, abs=1e-9)
    }  # fmt: skip
    assert loss == pytest.approx(25 * 0.99)


@pytest.mark.parametrize("loss", [_barlow_loss, losses.vicreg])
def test_same_on_8_devices(loss):
    checks.assert_same_on_8_devices(loss, Z, rows_stay=True)


@pytest.mark.parametrize("loss", [_barlow_loss, losses.vicreg])
def test_finite_when_degenerate_and_in_bfloat16(loss):
    checks.assert_finite_when_degenerate(loss, Z)
    checks.assert_computes_in_float32(loss, Z)


@pytest.mark.parametrize("loss", [losses.barlow_twins, losses.vicreg])
@pytest.mark.parametrize("shape", [(1, 2, 3), (4, 3, 3), (4, 3)])
def test_invalid_shapes_raise(loss, shape):
    with pytest.raises(ValueError, match=r"must be \[b, 2, d\]"):
        jax.eval_shape(loss, jnp.zeros(shape))
