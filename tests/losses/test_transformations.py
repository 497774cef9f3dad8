"""Losses of transformations: values by hand, chance levels, and angles around the circle."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.losses.transformations import classification, difference, direction


def test_classification_is_the_mean_cross_entropy():
    logits = np.random.default_rng(0).normal(size=(5, 3, 4))
    label = np.random.default_rng(1).integers(0, 4, (5, 3))
    probability = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    picked = np.take_along_axis(probability, label[..., None], -1)
    loss, metrics = classification(jnp.asarray(logits, jnp.float32), jnp.asarray(label))
    np.testing.assert_allclose(loss, -np.log(picked).mean(), rtol=1e-5)
    accuracy = (logits.argmax(-1) == label).mean()
    np.testing.assert_allclose(metrics["pretext_accuracy"], accuracy, rtol=1e-6)
    assert metrics["pretext_chance"] == 0.25


@pytest.mark.parametrize(
    ("predicted", "true", "degrees"),
    [(0, 0, 0), (10, 350, 20), (350, 10, 20), (-170, 170, 20), (90, -90, 180), (45, 405, 0)],
)
def test_direction_measures_the_shorter_way_around_the_circle(predicted, true, degrees):
    a, b = np.deg2rad(predicted), np.deg2rad(true)
    vector = 3 * jnp.array([[np.cos(a), np.sin(a)]], jnp.float32)  # the length has no effect
    loss, metrics = direction(vector, jnp.array([b], jnp.float32))
    np.testing.assert_allclose(loss, 1 - np.cos(np.deg2rad(degrees)), atol=1e-6)
    np.testing.assert_allclose(metrics["pretext_error"], degrees, atol=1e-3)


def test_a_guess_of_the_direction_has_the_error_of_chance():
    angle = jnp.linspace(0, 2 * np.pi, 720, endpoint=False)
    vector = jnp.broadcast_to(jnp.array([[0.3, 0.7]]), (720, 2))
    loss, metrics = direction(vector, angle)
    np.testing.assert_allclose(loss, 1, atol=1e-5)
    np.testing.assert_allclose(metrics["pretext_error"], metrics["pretext_error_chance"], rtol=1e-5)


def test_direction_has_a_finite_gradient_at_the_zero_vector():
    gradient = jax.grad(lambda v: direction(v, jnp.zeros(2))[0])(jnp.zeros((2, 2)))
    assert np.isfinite(gradient).all()


def test_difference_lies_between_0_and_pi():
    a, b = np.random.default_rng(2).uniform(-20, 20, (2, 100))
    want = np.arccos(np.cos(a - b))
    np.testing.assert_allclose(difference(jnp.asarray(a), jnp.asarray(b)), want, atol=1e-5)


@pytest.mark.parametrize("function", [classification, direction])
def test_wrong_shapes_raise(function):
    with pytest.raises(ValueError, match="do not fit"):
        function(jnp.zeros((3, 2)), jnp.zeros(4, jnp.int32))
