"""Gradients of the convolution in the fast layout against autodiff."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, PartitionSpec

from ssl_jax import models
from ssl_jax.models import conv


def _gradients(function, x, kernel, g):
    return jax.jit(lambda *a: jax.vjp(function, *a[:2])[1](a[2]))(x, kernel, g)


@pytest.mark.parametrize("size", [(5, 5), (8, 7)])
@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (3, 2)])
@pytest.mark.parametrize(
    ("kernel", "padding"),
    [(1, "VALID"), (3, ((1, 1), (1, 1))), (3, "SAME"), (4, ((0, 1), (2, 0))), (2, "VALID")],
)
def test_gradients_equal_autodiff(size, stride, kernel, padding):
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        x, k = jnp.asarray(rng.normal(size=(3, *size, 2))), rng.normal(size=(kernel, kernel, 2, 4))

        def autodiff(x, k):
            return lax.conv_general_dilated(x, k, stride, padding, dimension_numbers=conv.LAYOUT)

        def ours(x, k):
            return conv.conv_general_dilated(x, k, stride, padding)

        y = autodiff(x, k)
        np.testing.assert_array_equal(ours(x, k), y)
        g = jnp.asarray(rng.normal(size=y.shape))
        for got, want in zip(_gradients(ours, x, k, g), _gradients(autodiff, x, k, g), strict=True):
            assert got.shape == want.shape
            np.testing.assert_allclose(got, want, rtol=0, atol=1e-12)


@pytest.mark.parametrize("option", [{"feature_group_count": 2}, {"rhs_dilation": (2, 2)}])
def test_dilation_and_groups_raise(option):
    with pytest.raises(ValueError, match="neither dilation nor groups"):
        conv.conv_general_dilated(
            jnp.zeros((1, 4, 4, 2)), jnp.zeros((3, 3, 2, 2)), (1, 1), "SAME", **option
        )


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the layout of XLA's CPU kernels")
def test_encoder_gradients_in_a_loop_use_the_layout_of_the_fast_kernels():
    encoder = models.get("resnet8", width=0.125, stem="cifar")
    images = jnp.zeros((2, 4, 16, 16, 3))

    def gradients(variables, images):
        def loss(params, x):
            updated = {**variables, "params": params}
            return encoder.apply(updated, x, True, mutable=["batch_stats"])[0].sum()

        def add(total, x):
            return jax.tree.map(jnp.add, total, jax.grad(loss)(variables["params"], x)), None

        return lax.scan(add, variables["params"], images)[0]

    variables = jax.eval_shape(lambda x: encoder.init(jax.random.key(0), x, True), images[0])
    text = jax.jit(gradients).lower(variables, images).compile().as_text()
    assert set(re.findall(r"dim_labels=([\w>-]+)", text)) == {"b01f_01io->b01f"}


@pytest.mark.parametrize("axes", ["shard_map", "explicit"])
def test_gradients_equal_autodiff_where_axes_are_not_auto(axes):
    rng = np.random.default_rng(0)
    x, k = (rng.normal(size=s).astype(np.float32) for s in ((8, 6, 6, 2), (3, 3, 2, 4)))
    kind = AxisType.Explicit if axes == "explicit" else AxisType.Auto
    mesh = jax.make_mesh((8,), ("data",), axis_types=(kind,))
    rows, replicated = PartitionSpec("data"), PartitionSpec()

    def kernel_gradient(k, x):
        def loss(k):
            return (conv.conv_general_dilated(x, k, (1, 1), "SAME") ** 2).sum()

        return jax.grad(loss)(k)

    sharded_gradient = kernel_gradient
    if axes == "shard_map":
        sharded_gradient = jax.shard_map(
            kernel_gradient, in_specs=(replicated, rows), out_specs=replicated
        )
    with jax.set_mesh(mesh):
        got = jax.jit(sharded_gradient)(jax.device_put(k, replicated), jax.device_put(x, rows))
    np.testing.assert_allclose(got, kernel_gradient(k, x), rtol=1e-4)
