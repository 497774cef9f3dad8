"""BYOL's and SimSiam's losses against their equations, one pair at a time in float64."""

import checks
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import losses

B, D = 16, 6
PREDICTION, TARGET = checks.rows(B, 2, D), checks.rows(B, 2, D, seed=1)


def _unit(x):
    return x / np.linalg.norm(x)


def _byol(prediction, target):
    total = 0.0
    for p, t in zip(prediction, target, strict=True):
        total += np.sum((_unit(p[0]) - _unit(t[1])) ** 2)
        total += np.sum((_unit(p[1]) - _unit(t[0])) ** 2)
    return total / len(prediction)


def _simsiam(prediction, target):
    total = 0.0
    for p, t in zip(prediction, target, strict=True):
        total -= (_unit(p[0]) @ _unit(t[1])) / 2 + (_unit(p[1]) @ _unit(t[0])) / 2
    return total / len(prediction)


CASES = pytest.mark.parametrize(
    ("loss", "oracle"), [(losses.byol, _byol), (losses.simsiam, _simsiam)], ids=["byol", "simsiam"]
)


@CASES
def test_equals_the_equations(loss, oracle):
    # The derivative by the target is not zero; only the loss's stop_gradient removes it.
    checks.assert_equals_oracle(
        loss, oracle, PREDICTION, TARGET, constant=1,
        metrics={"cosine": -_simsiam(PREDICTION, TARGET)},
    )  # fmt: skip


@CASES
def test_same_on_8_devices(loss, oracle):
    del oracle
    checks.assert_same_on_8_devices(loss, PREDICTION, TARGET, rows_stay=True)


@CASES
def test_finite_when_degenerate_and_in_bfloat16(loss, oracle):
    del oracle
    checks.assert_finite_when_degenerate(loss, PREDICTION, TARGET)
    checks.assert_computes_in_float32(loss, PREDICTION, TARGET)


def test_byol_reaches_both_ends_of_its_range():
    z = jnp.asarray(PREDICTION, jnp.float32)
    crossed = z[:, ::-1]
    byol = jax.jit(losses.byol)
    assert byol(z, 3 * crossed)[0] == pytest.approx(0, abs=1e-6)
    assert byol(z, -crossed)[0] == pytest.approx(8, abs=1e-6)
    assert byol(jnp.zeros_like(z), z)[0] == 4


@pytest.mark.parametrize("shapes", [((4, 3, 2),) * 2, ((4, 2),) * 2, ((4, 2, 5), (4, 2, 6))])
def test_invalid_shapes_raise(shapes):
    with pytest.raises(ValueError, match=r"both must be \[b, 2, d\]"):
        jax.eval_shape(losses.byol, *map(jnp.zeros, shapes))
