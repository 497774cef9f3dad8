"""Batch normalisation against its definition in float64, as loops over groups and views."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from ssl_jax.models.norm import BatchNorm

ROWS, FEATURES = 32, 5


def _data(shape, seed=0):
    rng = np.random.default_rng(seed)
    scale = rng.uniform(0.7, 2, shape[-1])
    return (rng.normal(size=shape) * scale + rng.normal(size=shape[-1])).astype(np.float32)


def _oracle(x, group, views, scale, bias, cotangent):
    """Returns (y, gradient, mean of means, mean of variances) in float64."""
    x, y, gradient, means, variances = x.astype(np.float64), {}, {}, [], []
    for start in range(0, len(x), group):
        for view in range(views):
            rows = np.arange(start + view, start + group, views)
            part, g = x[rows].reshape(-1, x.shape[-1]), cotangent[rows].reshape(-1, x.shape[-1])
            deviation = np.sqrt(part.var(0) + 1e-5)
            unit = (part - part.mean(0)) / deviation
            y.update(zip(rows, (unit * scale + bias).reshape(x[rows].shape), strict=True))
            part_gradient = scale / deviation * (g - g.mean(0) - unit * (g * unit).mean(0))
            gradient.update(zip(rows, part_gradient.reshape(x[rows].shape), strict=True))
            means.append(part.mean(0))
            variances.append(part.var(0))
    order = range(len(x))
    return (
        np.stack([y[i] for i in order]),
        np.stack([gradient[i] for i in order]),
        np.mean(means, 0),
        np.mean(variances, 0),
    )


def _variables(module, x):
    rng = np.random.default_rng(1)
    variables = module.init(jax.random.key(0), x, True)
    return jax.tree.map(lambda v: jnp.asarray(rng.uniform(0.5, 2, v.shape), v.dtype), variables)


@pytest.mark.parametrize("shape", [(ROWS, FEATURES), (ROWS, 3, 4, FEATURES)])
@pytest.mark.parametrize(("group", "views"), [(0, 1), (8, 1), (16, 2)])
def test_output_gradient_and_running_statistics(shape, group, views):
    x, cotangent = _data(shape), np.random.default_rng(2).normal(size=shape)
    module = BatchNorm(group=group, views=views)
    variables = _variables(module, x)
    scale, bias = (np.asarray(variables["params"][name]) for name in ("scale", "bias"))
    y, gradient, mean, var = _oracle(x, group or ROWS, views, scale, bias, cotangent)

    @jax.jit
    def apply_and_pull(x, g):
        def apply(x):
            return module.apply(variables, x, True, mutable=["batch_stats"])

        got, pullback, updates = jax.vjp(apply, x, has_aux=True)
        return got, pullback(g)[0], updates

    got, got_gradient, updates = apply_and_pull(x, jnp.asarray(cotangent, jnp.float32))
    np.testing.assert_allclose(got, y, rtol=0, atol=1e-5)
    assert np.abs(got_gradient - gradient).max() < 1e-5 * np.abs(gradient).max()
    old, new = variables["batch_stats"], updates["batch_stats"]
    np.testing.assert_allclose(new["mean"], 0.9 * old["mean"] + 0.1 * mean, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(new["var"], 0.9 * old["var"] + 0.1 * var, rtol=2e-6)


def test_evaluation_uses_only_running_statistics():
    x = _data((7, 2, 2, FEATURES))
    module = BatchNorm(group=4)  # does not divide 7, but groups matter only in training
    variables = _variables(module, x[:4])
    stats, params = (jax.tree.map(np.float64, variables[k]) for k in ("batch_stats", "params"))
    want = (x - stats["mean"]) / np.sqrt(stats["var"] + 1e-5) * params["scale"] + params["bias"]
    np.testing.assert_allclose(module.apply(variables, x, False), want, rtol=2e-6, atol=2e-6)


def test_initial_state_and_names():
    module = BatchNorm(use_bias=False, scale_init=jax.nn.initializers.zeros, dtype=jnp.bfloat16)
    variables = module.init(jax.random.key(0), jnp.ones((4, 3), jnp.bfloat16), True)
    assert list(variables["params"]) == ["scale"]
    np.testing.assert_array_equal(variables["params"]["scale"], np.zeros(3))
    np.testing.assert_array_equal(variables["batch_stats"]["mean"], np.zeros(3))
    np.testing.assert_array_equal(variables["batch_stats"]["var"], np.ones(3))
    assert {v.dtype for v in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
    assert module.apply(variables, jnp.ones((4, 3)), False).dtype == jnp.bfloat16
    assert "params" not in BatchNorm(use_bias=False, use_scale=False).init(
        jax.random.key(0), jnp.ones((4, 3)), True
    )


def test_bfloat16_input_with_a_large_mean_stays_accurate():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(1000, 8, (256, 4, 4, 3)), jnp.bfloat16)
    exact = np.asarray(x, np.float64)
    module = BatchNorm(dtype=jnp.bfloat16)
    variables = module.init(jax.random.key(0), x, True)
    step = jax.jit(lambda v: module.apply(v, x, True, mutable=["batch_stats"]))
    for _ in range(60):
        y, updates = step(variables)
        variables = {**variables, **updates}
    want = (exact - exact.mean((0, 1, 2))) / np.sqrt(exact.var((0, 1, 2)) + 1e-5)
    np.testing.assert_allclose(np.asarray(y, np.float64), want, rtol=2**-8, atol=1e-5)
    # In bfloat16 the mean alone would be off by up to 2. At step 0, cancellation costs 1e-3.
    first = step(module.init(jax.random.key(0), x, True))[1]["batch_stats"]
    np.testing.assert_allclose((first["var"] - 0.9) / 0.1, exact.var((0, 1, 2)), rtol=1e-2)
    stats = variables["batch_stats"]
    settled = (1 - 0.9**60) * exact.var((0, 1, 2)) + 0.9**60
    np.testing.assert_allclose(stats["var"], settled, rtol=1e-3)


def test_constant_channel_gives_finite_output():
    x = jnp.full((16, 3), 1e4)
    y, _ = BatchNorm().init_with_output(jax.random.key(0), x, True)
    assert np.isfinite(y).all()
    assert np.abs(y).max() < 1


@pytest.mark.parametrize(("group", "views"), [(0, 1), (0, 2), (4, 2), (2, 1), (16, 1)])
def test_result_does_not_depend_on_the_number_of_devices(group, views):
    x = _data((ROWS, 3, 3, FEATURES))
    module = BatchNorm(group=group, views=views)
    variables = _variables(module, x)

    def loss(x):
        y, updates = module.apply(variables, x, True, mutable=["batch_stats"])
        return (y**3).sum(), (y, updates)

    step = jax.jit(jax.grad(loss, has_aux=True))
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    sharded = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))
    want, got = step(jax.device_put(x, jax.devices()[0])), step(sharded)
    leaves = (map(np.asarray, jax.tree.leaves(tree)) for tree in (got, want))
    for a, b in zip(*leaves, strict=True):
        assert np.abs(a - b).max() < 1e-5 * np.abs(b).max()
    assert got[1][0].sharding.spec == PartitionSpec("data")


def test_groups_within_a_device_need_no_communication():
    x = jax.device_put(
        _data((ROWS, 3, 3, FEATURES)),
        NamedSharding(
            jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,)), PartitionSpec("data")
        ),
    )
    module = BatchNorm(group=4, views=2)
    variables = _variables(module, x)
    text = jax.jit(lambda x: module.apply(variables, x, True, mutable=["batch_stats"])[0]).lower(x)
    compiled = text.compile().as_text()
    for collective in ("all-reduce", "all-gather", "all-to-all", "collective-permute"):
        assert f" {collective}" not in compiled


@pytest.mark.parametrize(("group", "views"), [(5, 1), (8, 3), (-4, 1), (64, 1)])
def test_group_that_does_not_divide_the_batch_raises(group, views):
    norm = BatchNorm(group=group, views=views)
    variables = norm.init(jax.random.key(0), jnp.ones((2, 3)), True)
    with pytest.raises(ValueError, match="must divide the 32 rows"):
        norm.apply(variables, jnp.ones((32, 3)), True, mutable=["batch_stats"])


def test_initialisation_accepts_fewer_rows_than_a_group():
    norm = BatchNorm(group=16)
    variables = norm.init(jax.random.key(0), jnp.ones((2, 3)), True)
    out, _ = norm.apply(variables, jnp.ones((32, 3)), True, mutable=["batch_stats"])
    assert out.shape == (32, 3)
