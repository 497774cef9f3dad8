"""The discriminator's loss and its opponent's against their definitions."""

import checks
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import losses

TRUE, MADE = 3 * checks.rows(16, 2), 3 * checks.rows(16, 2, seed=1)


def _d(logits):
    return 1 / (1 + np.exp(-logits))


def _discriminate(true, made):
    return -(np.log(_d(true)).mean() + np.log(1 - _d(made)).mean()) / 2


def _fool(made):
    return losses.fool(made), {}


def test_both_equal_their_definitions():
    accuracy = (np.mean(_d(TRUE) > 0.5) + np.mean(_d(MADE) < 0.5)) / 2
    assert 0.3 < accuracy < 0.9
    metrics = {"discriminator_accuracy": accuracy}
    checks.equals(losses.discriminate, _discriminate, TRUE, MADE, metrics=metrics)
    checks.equals(_fool, lambda made: -np.log(_d(made)).mean(), MADE)


def test_the_maker_s_gradient_does_not_vanish_where_the_discriminator_is_sure():
    assert jax.grad(losses.fool)(jnp.array(-200.0)) == pytest.approx(-1)
    true, made = jnp.array(500.0), jnp.array(500.0)
    assert losses.discriminate(true, made)[0] == pytest.approx(250)


def test_devices_and_narrow_types():
    checks.devices_do_not_matter(losses.discriminate, TRUE, MADE, rows_stay=True)
    checks.keeps_at_least_float32(losses.discriminate, TRUE, MADE)
    checks.keeps_at_least_float32(_fool, MADE)
