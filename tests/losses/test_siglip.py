"""The pairwise sigmoid loss and its gradient against the written-out sums in float64."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from ssl_jax import losses
from ssl_jax.losses import tiles

N, D = 40, 16


def _towers(n=N, d=D, seed=0):
    """Two towers whose partners agree a little."""
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(n, d))
    return common + rng.normal(size=(n, d)), 2 * common + rng.normal(size=(n, d))


def _oracle(image, text, temperature, bias):
    """Returns (loss, gradients by image, text, temperature and bias, metrics), without autodiff."""
    lengths = [np.linalg.norm(z, axis=1, keepdims=True) for z in (image, text)]
    x, y = image / lengths[0], text / lengths[1]
    cosine = x @ y.T
    sign = 2 * np.eye(len(x)) - 1
    logits = cosine / temperature + bias
    loss = np.logaddexp(0, -sign * logits).sum() / len(x)
    slope = -sign / (1 + np.exp(sign * logits)) / len(x)  # of the loss by each logit
    by_rows = []
    for unit, other, length in ((x, slope @ y, lengths[0]), (y, slope.T @ x, lengths[1])):
        by_unit = other / temperature
        by_rows.append((by_unit - unit * (by_unit * unit).sum(1, keepdims=True)) / length)
    by_temperature = -(slope * cosine).sum() / temperature**2
    off = sign < 0
    diagonal = np.diagonal(cosine)[:, None]
    probability = 1 / (1 + np.exp(-logits))
    metrics = {
        "contrastive_accuracy": ((cosine >= diagonal) & off).sum(1).__eq__(0).mean(),
        "contrastive_chance": 1 / len(x),
        "positive_probability": np.diagonal(probability).mean(),
        "negative_probability": probability[off].mean(),
        "alignment": np.square(x - y).sum(1).mean(),
    }
    return (loss, *by_rows, by_temperature, slope.sum()), metrics


def _mesh(devices):
    shape = (devices,) if isinstance(devices, int) else devices
    return jax.make_mesh(
        shape, ("data", "fsdp")[: len(shape)], axis_types=(AxisType.Auto,) * len(shape),
        devices=jax.devices()[: np.prod(shape)],
    )  # fmt: skip


def _computed(towers, temperature, bias, dtype, devices=1, transport=None):
    mesh = _mesh(devices)
    sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    scalar = jnp.float64 if dtype == jnp.float64 else jnp.float32

    def loss(image, text, temperature, bias):
        return losses.siglip(image, text, temperature=temperature, bias=bias, transport=transport)

    with jax.set_mesh(mesh):
        arrays = [jax.device_put(jnp.asarray(t, dtype), sharding) for t in towers]
        step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2, 3), has_aux=True))
        (value, metrics), gradient = step(
            *arrays, jnp.asarray(temperature, scalar), jnp.asarray(bias, scalar)
        )
    return [np.asarray(v, np.float64) for v in (value, *gradient)], metrics


def _gap(got, want):
    scales = [max(abs(want[0]), 0.1)] + [max(np.abs(g).max(), 1e-3) for g in want[1:]]
    return max(np.abs(g - w).max() / s for g, w, s in zip(got, want, scales, strict=True))


@pytest.mark.parametrize("tile", [7, 40, 1024])
def test_equals_the_formula_on_any_number_of_devices(tile, monkeypatch):
    monkeypatch.setattr(tiles, "TILE", tile)
    towers = _towers()
    want, want_metrics = _oracle(*towers, 0.1, -2.0)
    layouts = [(1, None), (8, "ring")]
    if tile == 7:
        layouts += [(2, "ring"), (4, "gather"), (5, "ring"), ((2, 2), "gather"), ((2, 2), "ring")]
    for devices, transport in layouts:
        with jax.enable_x64(True):
            got, metrics = _computed(towers, 0.1, -2.0, jnp.float64, devices, transport)
            assert {v.dtype for v in metrics.values()} == {jnp.dtype(jnp.float64)}
        assert _gap(got, want) < 1e-13, (devices, transport)
        got_metrics = {name: float(value) for name, value in metrics.items()}
        assert got_metrics == pytest.approx(want_metrics, rel=1e-12)


@pytest.mark.parametrize(("temperature", "bias"), [(0.1, -10.0), (0.01, -10.0), (1.0, 3.0)])
def test_float32_accuracy(temperature, bias):
    towers = [t.astype(np.float32) for t in _towers()]
    want, _ = _oracle(*(t.astype(np.float64) for t in towers), temperature, bias)
    got, _ = _computed(towers, temperature, bias, jnp.float32)
    assert _gap(got, want) < 1e-5


def test_bfloat16_rows_keep_the_exact_gradient_of_temperature_and_bias():
    """-10.03 is not a bfloat16 number, and a learned bias moves in smaller steps than those."""
    towers = [np.asarray(jnp.asarray(t, jnp.bfloat16), np.float64) for t in _towers()]
    want, _ = _oracle(*towers, 0.1, -10.03)
    got, _ = _computed(towers, 0.1, -10.03, jnp.bfloat16)
    assert _gap(got, want) < 5e-3
    assert got[4] == pytest.approx(want[4], rel=2e-3)


def test_equals_algorithm_1_of_the_paper():
    """Their pseudo-code, with t' = log 10 and b = -10."""
    image, text = _towers()
    t, b = np.exp(np.log(10.0)), -10.0
    zimg, ztxt = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (image, text))
    logits = zimg @ ztxt.T * t + b
    labels = 2 * np.eye(N) - np.ones((N, N))
    want = -np.sum(-np.log1p(np.exp(-labels * logits))) / N
    got = losses.siglip(*(jnp.asarray(z, jnp.float32) for z in (image, text)), temperature=1 / t,
                        bias=b)[0]  # fmt: skip
    assert float(got) == pytest.approx(want, rel=1e-5)


def test_collapse_has_zero_accuracy_and_zero_rows_are_finite():
    step = jax.jit(
        jax.value_and_grad(
            lambda x, y: losses.siglip(x, y, temperature=0.1, bias=-10.0),
            argnums=(0, 1), has_aux=True,
        )
    )  # fmt: skip
    equal = jnp.tile(jnp.asarray(_towers()[0][:1], jnp.float32), (N, 1))
    for x in (equal, jnp.zeros_like(equal)):
        (loss, metrics), gradient = step(x, x)
        assert metrics["contrastive_accuracy"] == 0
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((loss, metrics, gradient)))


@pytest.mark.parametrize(
    ("shapes", "temperature", "message"),
    [
        (((8, 4), (7, 4)), 0.1, "shapes"),
        (((1, 4), (1, 4)), 0.1, "at least 2"),
        (((8, 2, 4), (8, 2, 4)), 0.1, "shapes"),
        (((8, 4), (8, 4)), 0.0, "temperature"),
        (((8, 4), (8, 4)), float("nan"), "temperature"),
    ],
)
def test_invalid_arguments_raise(shapes, temperature, message):
    with pytest.raises(ValueError, match=message):
        losses.siglip(*map(jnp.ones, shapes), temperature=temperature, bias=0.0)


@pytest.mark.parametrize("name", ["siglip", "paired_info_nce"])
@pytest.mark.parametrize("transport", ["gather", "ring"])
def test_memory_and_traffic_grow_linearly_with_the_rows(name, transport, monkeypatch):
    """The compiled program has no n x n array, and devices divide the pairs."""
    monkeypatch.setattr(tiles, "TILE", 128)
    n, d, devices = 4096, 64, 8
    options = {"bias": -10.0} if name == "siglip" else {}

    def loss(x, y):
        return getattr(losses, name)(x, y, temperature=0.1, transport=transport, **options)[0]

    programs = {}
    for count in (1, devices):
        mesh = _mesh(count)
        sharding = NamedSharding(mesh, PartitionSpec("data"))
        step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)), out_shardings=(None, sharding))
        spec = jax.ShapeDtypeStruct((n, d), jnp.float32, sharding=sharding)
        with jax.set_mesh(mesh):
            programs[count] = step.lower(spec, spec).compile()
    text = programs[devices].as_text()
    assert not re.search(rf"\[{n},{n}\]", text)
    assert "all-to-all" not in text
    rows, few_tiles = n * d, 8 * 128 * 128 * 4
    gathered = rows / devices if transport == "ring" else rows
    memory = programs[devices].memory_analysis().temp_size_in_bytes
    assert memory < 4 * (12 * rows / devices + 4 * gathered) + few_tiles
    # Every device visits its own rows against all columns: the trip counts of the loops say so.
    assert _products(programs[devices]) <= 1.1 * _products(programs[1]) / devices


def _products(compiled):
    from ssl_jax.plan import cost_analysis
    from ssl_jax.plan.hlo import Module

    return cost_analysis.total_flops(cost_analysis.find_products(Module(compiled.as_text())))
