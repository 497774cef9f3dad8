"""Distillation: the loss against SciPy, a student against NumPy, and a constant teacher."""

import jax
import jax.numpy as jnp
import linear
import numpy as np
import pytest
import scipy.special
import scipy.stats
import tiny

from ssl_jax.losses import distillation as loss
from ssl_jax.methods import Run, distillation

B, CLASSES, STEPS, RATE = 8, 3, 4, 0.5


def make(temperature=0.5, views=1):
    run = Run(tiny.seen(views, 2), STEPS, B, B)
    return distillation.make(
        linear.Linear(dtype=jnp.float64), run, teacher=tiny.teacher(), temperature=temperature
    )


@pytest.mark.parametrize("temperature", [0.1, 1.0, 4.0])
def test_loss_is_the_teacher_s_entropy_plus_the_divergence(temperature):
    rng = np.random.default_rng(0)
    student, teacher = rng.normal(size=(2, B, CLASSES)) * 3
    p, q = (scipy.special.softmax(x / temperature, axis=-1) for x in (teacher, student))
    entropy = scipy.stats.entropy(p, axis=-1).mean()
    with jax.enable_x64(True):
        value, metrics = loss(jnp.asarray(student), jnp.asarray(teacher), temperature=temperature)
    np.testing.assert_allclose(
        value, entropy + scipy.stats.entropy(p, q, axis=-1).mean(), rtol=1e-9
    )
    np.testing.assert_allclose(metrics["target_entropy"], entropy, rtol=1e-9)
    np.testing.assert_allclose(
        metrics["agreement"], np.mean(student.argmax(1) == teacher.argmax(1))
    )


def test_large_logits_of_half_precision_stay_finite():
    student = jnp.asarray([[80.0, -80.0, 0.0]], jnp.bfloat16)
    value, gradient = jax.value_and_grad(lambda x: loss(x, x[:, ::-1], temperature=0.1)[0])(student)
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, 800, rtol=1e-3)  # (80 - 0) / T: the teacher is certain
    assert np.isfinite(gradient.astype(jnp.float32)).all()


def test_teacher_receives_no_gradient():
    x = jnp.asarray(np.random.default_rng(1).normal(size=(B, CLASSES)), jnp.float32)
    gradient = jax.grad(lambda teacher: loss(x, teacher, temperature=0.3)[0])(x + 1)
    np.testing.assert_array_equal(gradient, np.zeros((B, CLASSES)))


def test_student_learns_as_in_numpy():
    temperature = 0.5
    with jax.enable_x64(True):
        rows = linear.batches(STEPS, B, views=1)
        history, last = linear.trajectory(make(temperature), rows, RATE)
    start = history[0][0].params
    w = np.asarray(start["encoder"]["dense"]["kernel"], np.float64)
    v, c = np.zeros((4, CLASSES)), np.zeros(CLASSES)
    for batch, (_, metrics) in zip(rows, history, strict=True):
        images = batch["views"][:, 0].astype(np.float64)
        x = images.reshape(B, -1)
        target = scipy.special.softmax(images.mean((1, 2)) * [4, 8, 16] / temperature, axis=-1)
        logits = x @ w @ v + c
        log_p = scipy.special.log_softmax(logits / temperature, axis=-1)
        np.testing.assert_allclose(metrics["loss"], -(target * log_p).sum(-1).mean(), rtol=1e-5)
        delta = (np.exp(log_p) - target) / temperature / B
        w, v, c = (
            w - RATE * x.T @ delta @ v.T,
            v - RATE * (x @ w).T @ delta,
            c - RATE * delta.sum(0),
        )
    assert np.isclose(history[0][1]["loss"], np.log(CLASSES))  # all classes equally likely at first
    np.testing.assert_allclose(last.params["encoder"]["dense"]["kernel"], w, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        last.params["classifier"]["dense"]["kernel"], v, rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(last.params["classifier"]["dense"]["bias"], c, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(last.extra["teacher"]["scale"], [4, 8, 16])
    method, images = make(temperature), rows[0]["views"][:, 0]
    expected = images.reshape(B, -1) @ w @ v + c
    np.testing.assert_allclose(
        method.logits(last.params, last.extra, images), expected, rtol=1e-3, atol=1e-5
    )


def test_teacher_weights_come_from_the_state():
    """A resumed run uses the checkpoint's teacher, whatever its folder holds by then."""
    method, batch = make(), linear.batches(1, B, views=1)[0]
    params, extra = method.init(jax.random.key(0), batch)
    other = extra | {"teacher": {"scale": np.float32([1, 0, 0])}}
    outputs, _ = method.encode(params, other, batch, jax.random.key(1))
    means = batch["views"][:, 0].mean((1, 2))
    np.testing.assert_allclose(outputs["teacher"], means * [1, 0, 0], rtol=1e-5, atol=1e-7)


def test_invalid_arguments_raise():
    with pytest.raises(ValueError, match=r"takes 1 view, got 2"):
        make(views=2)
    with pytest.raises(ValueError, match="temperature must be positive, got 0"):
        make(temperature=0)
    with pytest.raises(ValueError, match="b, k"):
        loss(jnp.zeros((2, 3)), jnp.zeros((2, 4)))
