"""Head that predicts something at every place."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.models.map_head import MapHead

MAP = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4, 4, 5)), jnp.float32)


def apply(side, maps=MAP, dtype=jnp.float32):
    head = MapHead(side, outputs=2, hidden=6, dtype=dtype)
    variables = head.init(jax.random.key(0), maps, False)
    return head.apply(variables, maps, False)


@pytest.mark.parametrize("side", [1, 2, 4, 11])
def test_the_prediction_has_the_side_that_was_asked_for(side):
    assert apply(side).shape == (3, side, side, 2)


def test_enlarging_is_linear_interpolation_of_the_small_prediction():
    small, large = np.asarray(apply(4)), np.asarray(apply(8))
    # Pixel 2i + 1 of the large prediction is a quarter of a pixel after pixel i of the small one.
    expected = 0.75 * small[:, :-1] + 0.25 * small[:, 1:]
    expected = 0.75 * expected[:, :, :-1] + 0.25 * expected[:, :, 1:]
    np.testing.assert_allclose(large[:, 1:-1:2, 1:-1:2], expected, atol=1e-6)


def test_a_constant_map_of_any_size_gives_one_prediction_inside():
    maps = jnp.ones((1, 9, 9, 5))
    for side in (3, 9, 27):
        middle = side // 2
        np.testing.assert_allclose(
            apply(side, maps)[:, middle, middle], apply(9, maps)[:, 4, 4], atol=1e-5
        )


def test_predictions_of_bfloat16_activations_are_float32():
    assert apply(4, dtype=jnp.bfloat16).dtype == jnp.float32
