"""Losses against a memory bank, over tiles and devices: values, gradients, memory, traffic."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from ssl_jax.losses import instance, tiles

B, D, ROWS, PADDED_ROWS, K = 16, 8, 61, 64, 5
TEMPERATURE = 0.2


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


RNG = np.random.default_rng(5)
Z = RNG.normal(size=(B, D)) * 3
BANK = unit(RNG.normal(size=(PADDED_ROWS, D)))
INDEX = np.r_[RNG.permutation(ROWS)[: B - 1], [0]].astype(np.int32)
INDEX[3] = INDEX[5]  # an image can occur twice in a batch
NOISE = RNG.integers(0, ROWS, (B, K), np.int32)


def on_devices(devices, function, *arrays):
    """Value and gradient by the first array, with all arrays sharded by rows."""
    mesh = jax.make_mesh(
        (devices,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices]
    )
    with jax.set_mesh(mesh):
        sharding = NamedSharding(mesh, PartitionSpec("data"))
        arrays = [x.astype(np.float32) if x.dtype == np.float64 else x for x in arrays]
        arrays = [jax.device_put(x, sharding) for x in arrays]
        return jax.device_get(jax.jit(jax.value_and_grad(function, has_aux=True))(*arrays))


def numeric_gradient(function, z, step=1e-5):
    """Gradient of a float64 function by central differences."""
    gradient = np.zeros_like(z)
    for i in np.ndindex(z.shape):
        shift = np.zeros_like(z)
        shift[i] = step
        gradient[i] = (function(z + shift) - function(z - shift)) / (2 * step)
    return gradient


def dense_softmax(z):
    """[b], -log P(i | v) from all logits at once."""
    logits = unit(z) @ BANK[:ROWS].T / TEMPERATURE
    return np.log(np.exp(logits).sum(1)) - logits[np.arange(B), INDEX]


def softmax(transport):
    def loss(z, bank, index):
        return instance.instance_softmax(
            z, bank, index, rows=ROWS, temperature=TEMPERATURE, transport=transport
        )

    return loss


@pytest.mark.parametrize(("devices", "transport"), [(1, None), (8, "gather"), (4, "ring")])
def test_instance_softmax_equals_the_dense_softmax(monkeypatch, devices, transport):
    monkeypatch.setattr(tiles, "TILE", 7)
    bank = BANK.copy()
    # Padding that would change the result if it counted.
    bank[ROWS:] = unit(Z)[: PADDED_ROWS - ROWS]
    (loss, metrics), gradient = on_devices(devices, softmax(transport), Z, bank, INDEX)
    expected = dense_softmax(Z)
    np.testing.assert_allclose(loss, expected.mean(), rtol=1e-6)
    np.testing.assert_allclose(metrics["own_probability"], np.exp(-expected).mean(), rtol=1e-5)
    expected_gradient = numeric_gradient(lambda z: dense_softmax(z).mean(), Z)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-5, atol=1e-7)
    logits = unit(Z) @ BANK[:ROWS].T
    hits = logits.argmax(1) == INDEX
    np.testing.assert_allclose(metrics["contrastive_accuracy"], hits.mean())
    others = np.arange(ROWS)[None] != INDEX[:, None]
    np.testing.assert_allclose(
        metrics["uniformity"], np.log(np.exp(4 * logits - 4)[others].mean()), rtol=1e-5
    )


def sum_of_sines(z, bank, index):
    """An arbitrary function of the products, and the products."""
    products = instance.products(z, bank, index)
    return jnp.sin(products).sum(), products


@pytest.mark.parametrize("devices", [1, 8])
def test_products_equal_einsum(monkeypatch, devices):
    # Chunks of 3 examples do not divide the 16.
    monkeypatch.setattr(instance, "CHUNK_ELEMENTS", 3 * K * D)
    (_, products), gradient = on_devices(devices, sum_of_sines, Z, BANK, NOISE)
    bank_rows = BANK[NOISE]
    expected = np.einsum("bd,bkd->bk", Z, bank_rows)
    np.testing.assert_allclose(products, expected, atol=2e-6)
    np.testing.assert_allclose(
        gradient, np.einsum("bk,bkd->bd", np.cos(expected), bank_rows), atol=2e-5
    )


def test_products_hold_and_send_less_than_the_gathered_rows():
    b, k, d, n = 16, 64, 128, 4096
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    shapes = (((b, d), jnp.float32), ((n, d), jnp.float32), ((b, k), jnp.int32))
    with pytest.MonkeyPatch.context() as patch, jax.set_mesh(mesh):
        patch.setattr(instance, "CHUNK_ELEMENTS", 2 * k * d)
        program = jax.jit(jax.value_and_grad(sum_of_sines, has_aux=True)).lower(
            *(jax.ShapeDtypeStruct(*shape, sharding=sharding) for shape in shapes)
        )
        compiled = program.compile()
    sent = re.findall(r"= (.*) (?:all-|reduce-scatter|collective-permute)", compiled.as_text())
    shapes = re.findall(r"\[([\d,]+)\]", " ".join(sent))
    sizes = [math.prod(map(int, shape.split(","))) for shape in shapes]
    assert max(sizes) <= max(b * k, b * d)
    assert compiled.memory_analysis().temp_size_in_bytes < b * k * d * 4 / 3


def test_nce_equals_values_computed_by_hand():
    log_z, rows = np.float32(3), 8
    # With this logit, a row is as likely to be the image's own as one of its 2 noise rows.
    even = log_z + np.log(2 / rows)
    own, noise = np.full((4,), even), np.full((4, 2), even)
    loss, metrics = jax.jit(lambda *x: instance.nce(*x, log_z=log_z, rows=rows))(own, noise)
    np.testing.assert_allclose(loss, 3 * np.log(2), rtol=1e-6)
    np.testing.assert_allclose(metrics["data_loss"], np.log(2), rtol=1e-6)
    np.testing.assert_allclose(metrics["noise_loss"], 2 * np.log(2), rtol=1e-6)
    np.testing.assert_allclose(metrics["own_probability"], 2 / rows, rtol=1e-6)


def test_log_partition_includes_the_images_own_rows():
    own, noise = np.log([4.0, 2.0]), np.log([[1.0, 1.0], [3.0, 1.0]])
    log_z = jax.jit(lambda *x: instance.log_partition(*x, rows=100))(own, noise)
    np.testing.assert_allclose(log_z, np.log(100 * 12 / 6), rtol=1e-6)
