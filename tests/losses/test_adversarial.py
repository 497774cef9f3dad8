"""The losses of discriminator and generator against their definitions."""

import checks
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import losses

REAL, GENERATED = 3 * checks.rows(16, 2), 3 * checks.rows(16, 2, seed=1)


def _sigmoid(logits):
    return 1 / (1 + np.exp(-logits))


def _discriminate(real, generated):
    return -(np.log(_sigmoid(real)).mean() + np.log(1 - _sigmoid(generated)).mean()) / 2


def _fool(generated):
    return losses.fool(generated), {}


def test_losses_equal_their_definitions():
    accuracy = (np.mean(_sigmoid(REAL) > 0.5) + np.mean(_sigmoid(GENERATED) < 0.5)) / 2
    assert 0.3 < accuracy < 0.9
    metrics = {"discriminator_accuracy": accuracy}
    checks.assert_equals_oracle(
        losses.discriminate, _discriminate, REAL, GENERATED, metrics=metrics
    )
    checks.assert_equals_oracle(
        _fool, lambda generated: -np.log(_sigmoid(generated)).mean(), GENERATED
    )


def test_generator_gradient_does_not_vanish_when_the_discriminator_is_sure():
    assert jax.grad(losses.fool)(jnp.array(-200.0)) == pytest.approx(-1)
    real, generated = jnp.array(500.0), jnp.array(500.0)
    assert losses.discriminate(real, generated)[0] == pytest.approx(250)


def test_same_on_8_devices_and_in_bfloat16():
    checks.assert_same_on_8_devices(losses.discriminate, REAL, GENERATED, rows_stay=True)
    checks.assert_computes_in_float32(losses.discriminate, REAL, GENERATED)
    checks.assert_computes_in_float32(_fool, GENERATED)
