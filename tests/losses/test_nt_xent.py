"""NT-Xent and its gradient against the written-out sums in float64."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from ssl_jax import losses
from ssl_jax.losses import pairs, tiles

TEMPERATURES = [0.02, 0.05, 0.1, 0.5, 1.0]


def _pairs(b, d=32, agreement=1.0, seed=0):
    """Returns [b, 2, d]; `agreement` weighs the part of the embedding that both views share."""
    rng = np.random.default_rng(seed)
    common, own = rng.normal(size=(b, 1, d)), rng.normal(size=(b, 2, d))
    return (3 * (agreement * common + own)).astype(np.float32)


def _oracle(z, temperature):
    """(loss, gradient, accuracy, entropy), one anchor at a time in float64."""
    z = z.astype(np.float64).reshape(-1, z.shape[-1])
    norms = np.linalg.norm(z, axis=1, keepdims=True)
    unit = z / norms
    total, gradient, hits, entropy = 0.0, np.zeros_like(unit), 0, 0.0
    for i in range(len(z)):
        others = np.array([j for j in range(len(z)) if j != i])
        positive = np.flatnonzero(others == (i ^ 1))[0]
        logits = unit[others] @ unit[i] / temperature
        shifted = np.exp(logits - logits[positive])
        total += np.log(shifted.sum())
        p = shifted / shifted.sum()
        hits += np.argmax(logits) == positive
        entropy -= (p[p > 0] * np.log(p[p > 0])).sum()
        softmax_minus_target = p.copy()
        softmax_minus_target[positive] -= 1
        gradient[i] += softmax_minus_target @ unit[others] / temperature
        gradient[others] += np.outer(softmax_minus_target, unit[i]) / temperature
    tangent = (gradient - unit * (gradient * unit).sum(1, keepdims=True)) / norms
    n = len(z)
    return total / n, (tangent / n).reshape(n // 2, 2, -1), hits / n, entropy / n


@jax.jit  # compiled once per shape and dtype, because the temperature is traced
def _step(z, temperature):
    return jax.value_and_grad(losses.nt_xent, has_aux=True)(z, temperature=temperature)


def _value_and_gradient(z, temperature):
    (loss, metrics), gradient = _step(z, temperature)
    return float(loss), metrics, np.asarray(gradient)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("agreement", [0.0, 1.0, 5.0])
def test_equals_the_float64_oracle(temperature, agreement):
    z = _pairs(24, agreement=agreement)
    want, want_gradient, accuracy, entropy = _oracle(z, temperature)
    loss, metrics, gradient = _value_and_gradient(z, temperature)
    assert abs(loss - want) < 1e-5 * max(want, 0.1)
    error = np.abs(gradient - want_gradient).max()
    assert error < 1e-5 * max(np.abs(want_gradient).max(), 1e-3)
    assert metrics["contrastive_accuracy"] == pytest.approx(accuracy, abs=1e-6)
    assert metrics["contrastive_chance"] == pytest.approx(1 / 47)
    assert metrics["entropy"] == pytest.approx(entropy, abs=1e-5)
    unit = z.astype(np.float64) / np.linalg.norm(z.astype(np.float64), axis=-1, keepdims=True)
    alignment = np.square(unit[:, 0] - unit[:, 1]).sum(-1).mean()
    assert metrics["alignment"] == pytest.approx(alignment, abs=1e-6)


def test_small_loss_stays_accurate():
    z = _pairs(24, agreement=100.0)
    want, want_gradient, *_ = _oracle(z, 0.1)
    assert want < 0.02
    loss, _, gradient = _value_and_gradient(z, 0.1)
    assert loss == pytest.approx(want, rel=1e-5)
    assert np.abs(gradient - want_gradient).max() < 1e-4 * np.abs(want_gradient).max()


def test_equals_optax():
    z = _pairs(8)
    labels = np.arange(16) // 2
    with jax.numpy_rank_promotion("allow"):
        want = jax.jit(optax.losses.ntxent)(z.reshape(16, 32), labels, temperature=0.3)
    assert _value_and_gradient(z, 0.3)[0] == pytest.approx(float(want), rel=1e-5)


def test_float16_is_computed_in_float32():
    z = jnp.asarray(_pairs(8), jnp.float16)
    loss, _, gradient = _value_and_gradient(z, 0.1)
    want, _, want_gradient = _value_and_gradient(np.asarray(z, np.float32), 0.1)
    assert loss == pytest.approx(want, rel=1e-6)
    assert gradient.dtype == z.dtype
    np.testing.assert_allclose(
        gradient.astype(np.float32),
        want_gradient,
        rtol=2 * float(jnp.finfo(jnp.float16).eps),
        atol=1e-6,
    )


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_bfloat16_accuracy(temperature):
    z = jnp.asarray(_pairs(24), jnp.bfloat16)
    loss, _, gradient = _value_and_gradient(z, temperature)
    want, want_gradient, *_ = _oracle(np.asarray(z, np.float32), temperature)
    assert abs(loss - want) < 5e-3 * max(want, 0.1)
    assert gradient.dtype == z.dtype
    assert np.abs(gradient - want_gradient).max() < 5e-3 * np.abs(want_gradient).max()


def test_float64_stays_float64():
    z = _pairs(8)
    with jax.enable_x64(True):
        loss, metrics = jax.jit(losses.nt_xent, static_argnames="temperature")(
            jnp.asarray(z, jnp.float64), temperature=0.1
        )
        assert {v.dtype for v in (loss, *metrics.values())} == {jnp.dtype(jnp.float64)}
        assert float(loss) == pytest.approx(_oracle(z, 0.1)[0], rel=1e-13)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_equal_rows_are_a_uniform_guess(temperature):
    z = np.tile(np.linspace(-1, 2, 32, dtype=np.float32), (8, 2, 1))
    loss, metrics, gradient = _value_and_gradient(z, temperature)
    rel = 1e-6 if temperature > 0.02 else 1e-5  # a logit of 50 is rounded by up to 4e-6
    assert loss == pytest.approx(np.log(15), rel=rel)
    assert metrics["entropy"] == pytest.approx(np.log(15), rel=rel)
    # A tie does not count as correct: a collapse must not look good.
    assert metrics["contrastive_accuracy"] == 0
    assert np.abs(gradient).max() < 1e-5


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_collapse_has_zero_contrastive_accuracy(dtype):
    for seed in range(8):
        row = np.random.default_rng(seed).normal(size=128)
        z = jnp.asarray(np.tile(row, (64, 2, 1)), dtype)
        assert _value_and_gradient(z, 0.1)[1]["contrastive_accuracy"] == 0


@pytest.mark.parametrize("temperature", [0.015, 0.02])
def test_gradient_near_collapse(temperature):
    """Sums of many large exponentials: their cotangents must stay in the range of float32."""
    rng = np.random.default_rng(0)
    z = (rng.normal(size=16) + 1e-2 * rng.normal(size=(256, 2, 16))).astype(np.float32)
    _, want, *_ = _oracle(z, temperature)
    _, _, gradient = _value_and_gradient(z, temperature)
    # The tolerance is wide because z itself is rounded to float32.
    assert np.abs(gradient - want).max() < 1e-3 * np.abs(want).max()


def test_duplicated_rows():
    z = _pairs(8)
    z[3] = z[5] = z[1, 0]
    want, want_gradient, *_ = _oracle(z, 0.1)
    loss, _, gradient = _value_and_gradient(z, 0.1)
    assert loss == pytest.approx(want, rel=1e-5)
    assert np.abs(gradient - want_gradient).max() < 1e-5 * np.abs(want_gradient).max()


@pytest.mark.parametrize("scale", [1e30, 1e-30])
def test_length_of_a_row_does_not_matter(scale):
    z = _pairs(8)
    want, _, want_gradient = _value_and_gradient(z, 0.1)
    z[2, 1] *= scale
    loss, _, gradient = _value_and_gradient(z, 0.1)
    assert loss == pytest.approx(want, rel=1e-6)
    rescaled = gradient * np.where(np.arange(16).reshape(8, 2, 1) == 5, scale, 1)
    np.testing.assert_allclose(rescaled, want_gradient, rtol=1e-4, atol=1e-7)


def test_one_hot_rows_have_the_right_gradient():
    z = np.zeros((4, 2, 8), np.float32)
    z[range(4), 0, range(4)] = 5
    z[range(4), 1, range(4)] = z[range(4), 1, range(4, 8)] = 2
    _, want, *_ = _oracle(z, 0.5)
    np.testing.assert_allclose(_value_and_gradient(z, 0.5)[2], want, rtol=1e-5, atol=1e-7)


def test_zero_rows_give_finite_results():
    z = _pairs(8)
    z[4, 0] = 0
    loss, metrics, gradient = _value_and_gradient(z, 0.05)
    assert all(np.isfinite(v) for v in (loss, *metrics.values()))
    assert np.isfinite(gradient).all()
    zero = _value_and_gradient(np.zeros_like(z), 0.05)
    assert zero[0] == pytest.approx(np.log(15), rel=1e-6)
    assert np.isfinite(zero[2]).all()


@pytest.mark.parametrize(
    ("shape", "temperature", "message"),
    [
        ((8, 16), 0.1, "shape"),
        ((8, 3, 16), 0.1, "shape"),
        ((1, 2, 16), 0.1, "at least 2"),
        ((8, 2, 16), 0, "temperature"),
        ((8, 2, 16), -0.1, "temperature"),
        ((8, 2, 16), float("nan"), "temperature"),
    ],
)
def test_invalid_arguments_raise(shape, temperature, message):
    with pytest.raises(ValueError, match=message):
        losses.nt_xent(jnp.ones(shape), temperature=temperature)


def _on_mesh(devices, z, transport=None):
    mesh = jax.make_mesh(
        (devices,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices]
    )
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    step = jax.jit(
        jax.value_and_grad(
            lambda z: losses.nt_xent(z, temperature=0.1, transport=transport), has_aux=True
        ),
        out_shardings=(None, sharding),
    )
    with jax.set_mesh(mesh):
        return step.lower(jax.ShapeDtypeStruct(z.shape, z.dtype, sharding=sharding)).compile(), (
            jax.device_put(z, sharding)
        )


@pytest.mark.parametrize("transport", ["gather", "ring"])
def test_result_does_not_depend_on_the_number_of_devices(transport):
    z = _pairs(16)
    results = []
    for devices in (1, 2, 4, 8):
        step, sharded = _on_mesh(devices, z, transport)
        results.append(jax.tree.map(np.asarray, step(sharded)))
    (want, want_metrics), want_gradient = results[0]
    for (loss, metrics), gradient in results[1:]:
        assert loss == pytest.approx(want, rel=5e-7)
        np.testing.assert_allclose(
            gradient, want_gradient, rtol=0, atol=5e-7 * np.abs(want_gradient).max()
        )
        for name, value in metrics.items():
            assert value == pytest.approx(want_metrics[name], rel=1e-5, abs=1e-6)


def _largest_collective(text, name):
    """Largest number of elements that a collective of this kind produces."""
    shapes = re.findall(rf"= \(?\w+\[([\d,]+)\]\S* {name}(?:-start)?\(", text)
    return max((np.prod([int(n) for n in shape.split(",")]) for shape in shapes), default=0)


@pytest.mark.parametrize("transport", ["gather", "ring"])
def test_memory_and_traffic_grow_linearly_with_the_rows(transport, monkeypatch):
    monkeypatch.setattr(tiles, "TILE", 128)
    b, d, devices = 4096, 64, 8
    step, _ = _on_mesh(devices, np.zeros((b, 2, d), np.float32), transport)
    text = step.as_text()
    rows = 2 * b * d
    assert not re.search(rf"\[{2 * b},{2 * b}\]", text)
    assert _largest_collective(text, "all-to-all") == 0
    if transport == "ring":
        assert _largest_collective(text, "collective-permute") == rows / devices
        assert _largest_collective(text, "all-gather") == 0
        gathered = rows / devices
    else:
        assert _largest_collective(text, "all-gather") == rows
        assert _largest_collective(text, "collective-permute") == 0
        gathered = rows
    # No gradient of an embedding crosses devices: only sums are reduced, one per row.
    assert _largest_collective(text, "reduce-scatter") == (
        0 if transport == "ring" else 2 * b / devices
    )
    assert _largest_collective(text, "all-reduce") <= 8
    # Rows and cotangents in flight, gradients, a few tiles. The full matrix would have 268 MB.
    few_tiles = 4 * 128 * 128 * 4
    assert (
        step.memory_analysis().temp_size_in_bytes
        < 4 * (6 * rows / devices + 2 * gathered) + few_tiles
    )


def test_large_rows_use_the_ring(monkeypatch):
    z = np.zeros((64, 2, 16), np.float32)
    assert "all-gather" in _on_mesh(8, z)[0].as_text()
    monkeypatch.setattr(pairs, "GATHER_BYTES", z.nbytes - 1)
    text = _on_mesh(8, z)[0].as_text()
    assert "collective-permute" in text
    assert "all-gather" not in text


@pytest.mark.parametrize("temperature", [0.02, 0.1])
def test_one_row_against_all_others(temperature):
    """Smallest possible similarities: without the window, the sums would underflow in float32."""
    z = np.tile(np.eye(8, dtype=np.float32)[0], (8, 2, 1))
    z[2, 1] *= -1
    want, want_gradient, *_ = _oracle(z, temperature)
    loss, _, gradient = _value_and_gradient(z, temperature)
    assert loss == pytest.approx(want, rel=1e-5)
    assert np.abs(gradient - want_gradient).max() < 1e-5 * max(np.abs(want_gradient).max(), 1e-3)


def test_gradient_of_a_learned_temperature():
    z = _pairs(24)
    gradient = jax.jit(jax.grad(lambda t: losses.nt_xent(z, temperature=t)[0]))(0.3)
    step = 1e-6
    want = (_oracle(z, 0.3 + step)[0] - _oracle(z, 0.3 - step)[0]) / (2 * step)
    assert gradient == pytest.approx(want, rel=1e-5)


def test_top5_and_uniformity_equal_their_definitions():
    z = _pairs(24)
    _, metrics, _ = _value_and_gradient(z, 0.1)
    unit = z.astype(np.float64).reshape(48, -1)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    s = unit @ unit.T
    i = np.arange(48)
    negative = i[:, None] // 2 != i[None, :] // 2
    closer = (negative & (s >= s[i, i ^ 1][:, None])).sum(1)
    assert metrics["contrastive_top5"] == pytest.approx((closer < 5).mean(), abs=1e-6)
    potential = np.exp(-2 * (2 - 2 * s[negative])).mean()
    assert metrics["uniformity"] == pytest.approx(np.log(potential), abs=1e-5)
