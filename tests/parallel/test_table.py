"""Rows of a table that is divided over devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from ssl_jax import parallel
from ssl_jax.errors import Fault
from ssl_jax.parallel import table

ROWS, WIDTH = 256, 5


def run(devices, fsdp, shape):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(ROWS, WIDTH)).astype(np.float32)
    index = rng.integers(0, 20, shape).astype(np.int32)
    weights = rng.normal(size=(*shape, WIDTH)).astype(np.float32)
    mesh = parallel.make_mesh(jax.devices()[:devices], fsdp=fsdp)
    by_rows = NamedSharding(mesh, PartitionSpec("fsdp"))

    def loss(values, index, weights):
        taken = table.take(values, index)
        return (taken * weights).sum(), taken

    with jax.set_mesh(mesh):
        program = jax.jit(jax.value_and_grad(loss, has_aux=True), out_shardings=None)
        arguments = (
            jax.device_put(values, by_rows),
            *(jax.device_put(x, parallel.rows(mesh)) for x in (index, weights)),
        )
        text = program.lower(*arguments).compile().as_text()
        (_, taken), gradient = program(*arguments)
    expected = np.zeros((ROWS, WIDTH))
    np.add.at(expected, index, weights.astype(np.float64))
    return np.asarray(taken), values[index], np.asarray(gradient), expected, text


@pytest.mark.parametrize("shape", [(16,), (16, 3, 2)])
@pytest.mark.parametrize(("devices", "fsdp"), [(1, 1), (2, 2), (8, 8), (8, 4), (8, 1)])
def test_rows_and_gradients_equal_numpy(devices, fsdp, shape):
    taken, expected, gradient, sums, _ = run(devices, fsdp, shape)
    np.testing.assert_array_equal(taken, expected)
    np.testing.assert_allclose(gradient, sums, rtol=1e-5, atol=1e-6)


def test_gradients_have_the_same_bits_on_any_number_of_devices():
    one = run(1, 1, (16, 3))[2]
    for devices, fsdp in ((2, 2), (8, 8), (8, 2), (8, 1)):
        np.testing.assert_array_equal(run(devices, fsdp, (16, 3))[2], one)


def test_more_rows_than_the_table_has_are_added_as_a_table():
    taken, expected, gradient, sums, text = run(8, 1, (64, 30))
    np.testing.assert_array_equal(taken, expected)
    np.testing.assert_allclose(gradient, sums, rtol=1e-4, atol=1e-5)
    assert "all-reduce" in text
    assert "all-gather" not in text


def test_a_divided_table_does_not_travel():
    text = run(8, 8, (16,))[4]
    assert f"f32[{ROWS},{WIDTH}]" not in text


def test_rows_that_cannot_be_divided_are_refused():
    mesh = parallel.make_mesh(jax.devices()[:8], fsdp=8)
    with jax.set_mesh(mesh), pytest.raises(ValueError, match=r"12 rows.*parallel\.fsdp=8"):
        jax.eval_shape(table.take, jnp.zeros((12, 2)), jnp.zeros((8,), jnp.int32))


def test_padded_rows_do_not_depend_on_devices():
    assert [table.padded_rows(n) for n in (1, 256, 257, 1_000_000)] == [256, 256, 512, 1_000_192]


def test_devices_that_do_not_divide_a_table_are_refused():
    layout, params = {"a": "table", "b": "parameters"}, {"a": {"t": jnp.zeros((512, 2))}}
    params["b"] = jnp.zeros(7)
    table.check(layout, params, parallel.make_mesh(jax.devices()[:8], fsdp=8))
    table.check("parameters", params, parallel.make_mesh(jax.devices()[:6], fsdp=3))
    with pytest.raises(Fault, match=r"parallel\.fsdp=3 does not divide a table of 512 rows"):
        table.check(layout, params, parallel.make_mesh(jax.devices()[:6], fsdp=3))
