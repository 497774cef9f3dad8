"""The lowest temperature: losses are exact there, and refuse a lower Python number."""

import dense
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import losses
from ssl_jax.losses import instance

B, D, K = 40, 16, 72
LOWEST = 2 / 135  # float32: terms from e^-80 to e^55, logits from -1 / T to 1 / T
LABEL = np.random.default_rng(3).integers(0, 5, B)
LOSSES = {
    "nt_xent": {},
    "nt_xent queue": {},
    "decoupled": {},
    "debiased": {"class_prior": 0.2},
    "hard_negatives": {"concentration": 0.7},
    "info_nce": {},
    "info_nce queue": {},
    "paired_info_nce": {},
    "supervised_contrastive": {"label": LABEL},
}


def spread(*shape, seed=0):
    """Rows in all directions."""
    return np.random.default_rng(seed).normal(size=shape) * 2 + 0.3


def opposite(*shape, seed=0):
    """Rows in about one direction, except a row that is opposite to all others.

    All exponentials of this row are near the bottom of the range; all others are near the top.
    """
    rows = 1 + 0.1 * np.random.default_rng(seed).normal(size=shape)
    rows[2, -1] *= -1 if len(shape) == 3 else 1
    rows[2] *= -1 if len(shape) == 2 and seed == 0 else 1
    return rows


def case(name, rows):
    """Returns (name of the loss, arrays, options); the arrays are float32 numbers in float64."""
    towers = "info_nce" in name
    arrays = [rows(B, D), rows(B, D, seed=1)] if towers else [rows(B, 2, D)]
    options = dict(LOSSES[name])
    if "queue" in name:
        options["queue"] = rows(K, D, seed=2)
    exact = jax.tree.map(
        lambda x: np.float32(x).astype(np.float64) if x.dtype == np.float64 else x,
        (arrays, {k: v for k, v in options.items() if isinstance(v, np.ndarray)}),
    )
    return name.split()[0], exact[0], options | exact[1]


def lowest(name):
    return LOWEST * (1 + LOSSES[name].get("concentration", 0))


def value_and_gradients(loss, arrays):
    argnums = tuple(range(len(arrays)))
    result = jax.jit(jax.value_and_grad(loss, argnums=argnums))(*arrays)
    return jax.tree.map(lambda x: np.asarray(x, np.float64), result)


@pytest.mark.parametrize("rows", [spread, opposite])
@pytest.mark.parametrize("name", LOSSES)
def test_float32_is_exact_at_the_lowest_temperature(name, rows):
    temperature = lowest(name) * 1.0001
    loss, arrays, options = case(name, rows)
    with jax.enable_x64(True), jax.numpy_rank_promotion("allow"):
        want, want_gradients = value_and_gradients(
            lambda *a: getattr(dense, loss)(*a, temperature=temperature, **options), arrays
        )
    if "queue" in options:
        options["queue"] = jnp.asarray(options["queue"], jnp.float32)
    got, gradients = value_and_gradients(
        lambda *a: getattr(losses, loss)(*a, temperature=temperature, **options)[0],
        [jnp.asarray(a, jnp.float32) for a in arrays],
    )
    assert abs(got - want) < 1e-5 * max(abs(want), 0.1)
    for gradient, expected in zip(gradients, want_gradients, strict=True):
        assert np.abs(gradient - expected).max() < 1e-5 * max(np.abs(expected).max(), 1e-3)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("name", LOSSES)
def test_a_lower_python_number_is_refused(name, dtype):
    loss, arrays, options = case(name, spread)
    arrays = [jnp.asarray(a, dtype) for a in arrays]
    for number in (lowest(name) * 0.9999, np.float32(0.003), 1e-30):
        with pytest.raises(ValueError, match=r"temperature must be at least 0\.0.* of float32"):
            getattr(losses, loss)(*arrays, temperature=number, **options)


def test_the_message_names_a_valid_temperature():
    z = jnp.asarray(spread(4, 2, D), jnp.float32)
    with pytest.raises(ValueError, match=r"at least 0\.0149, got 0\.0148"):
        losses.nt_xent(z, temperature=0.0148)
    losses.nt_xent(z, temperature=0.0149)
    with pytest.raises(ValueError, match=r"at least 0\.0445 with concentration 2, got 0\.04"):
        losses.hard_negatives(z, temperature=0.04, concentration=2)
    losses.hard_negatives(z, temperature=0.0445, concentration=2)


def test_the_memory_bank_refuses_a_lower_temperature():
    bank = jnp.asarray(spread(8, D), jnp.float32)
    options = {"rows": 8, "temperature": 0.0148}
    with pytest.raises(ValueError, match=r"temperature must be at least 0\.0149"):
        instance.instance_softmax(bank[:4], bank, jnp.arange(4), **options)


def nt_xent_by_logsumexp(z, temperature):
    rows = (z / jnp.linalg.norm(z, axis=-1, keepdims=True)).reshape(-1, z.shape[-1])
    i = np.arange(len(rows))
    logits = jnp.where(i[:, None] == i[None, :], -jnp.inf, rows @ rows.T / temperature)
    return (jax.nn.logsumexp(logits, axis=1) - logits[i, i ^ 1]).mean()


@pytest.mark.parametrize("rows", [spread, opposite])
def test_float64_has_a_lower_limit(rows):
    limit = 2 / 1377  # terms from e^-701 to e^676
    with jax.enable_x64(True), jax.numpy_rank_promotion("allow"):
        z = jnp.asarray(rows(B, 2, D))
        want, want_gradient = value_and_gradients(lambda z: nt_xent_by_logsumexp(z, limit), (z,))
        got, gradient = value_and_gradients(lambda z: losses.nt_xent(z, temperature=limit)[0], (z,))
        assert got == pytest.approx(want, rel=1e-13)
        np.testing.assert_allclose(gradient[0], want_gradient[0], rtol=1e-9, atol=1e-12)
        with pytest.raises(ValueError, match=r"at least 0\.0015, got 0\.00145.* of float64"):
            losses.nt_xent(z, temperature=0.00145)


def test_an_array_below_the_limit_is_exact_while_the_closest_negative_is_close():
    """Learned temperatures are not refused; `nt_xent` documents how close is close enough."""
    temperature = 0.006
    z = np.float32(spread(B, 2, D)).astype(np.float64)
    unit = z.reshape(2 * B, D) / np.linalg.norm(z.reshape(2 * B, D), axis=1, keepdims=True)
    i = np.arange(2 * B)
    cosines = np.where(i[:, None] // 2 == i[None, :] // 2, -1, unit @ unit.T)
    assert cosines.max(1).min() > 1 - 110 * temperature
    with jax.enable_x64(True), jax.numpy_rank_promotion("allow"):
        want, want_gradient = value_and_gradients(
            lambda z: nt_xent_by_logsumexp(z, temperature), (z,)
        )
    got, gradient = value_and_gradients(
        lambda z, t: losses.nt_xent(z, temperature=t)[0],
        (jnp.asarray(z, jnp.float32), jnp.float32(temperature)),
    )
    assert got == pytest.approx(want, rel=1e-5)
    assert np.abs(gradient[0] - want_gradient[0]).max() < 1e-5 * np.abs(want_gradient[0]).max()
