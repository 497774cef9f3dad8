"""How the target starts, which biases exist, and which rows are normalised together."""

import inspect

import jax
import linear
import numpy as np
import pytest
import tiny

from ssl_jax import config as configuration
from ssl_jax import methods
from ssl_jax.config import method_fields
from ssl_jax.methods import Run, barlow_twins, byol, moco_v3, simclr, simclr_v2, vicreg

B = 8
RUN = Run(tiny.seen(2, 2), total_steps=4, batch_size=B, num_examples=16)
SMALL = {"hidden_dim": 6, "output_dim": 3}
JOINT = {"barlow_twins": barlow_twins.make, "vicreg": vicreg.make}
(BATCH,) = linear.batches(1, B)


def start(make, **fields):
    """Returns (method, parameters, extra) before the first step."""
    method = make(linear.Linear(), RUN, **(SMALL | fields))
    return method, *method.init(jax.random.key(3), BATCH)


def encoded(make, **fields):
    """Returns (outputs, statistics, parameters) of the first step."""
    method, params, extra = start(make, **fields)
    outputs, stats = method.encode(params, extra, BATCH, jax.random.key(0))
    return outputs, stats, params


def equal(a, b):
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, a, b)))


@pytest.mark.parametrize(("target_init", "copied"), [("own", False), ("copy", True)])
def test_target_of_byol_starts_from_its_own_weights_or_as_a_copy(target_init, copied):
    _, params, extra = start(byol.make, target_init=target_init)
    online = {name: params[name] for name in ("encoder", "projector")}
    kernels = [tree["encoder"]["dense"]["kernel"] for tree in (online, extra["target"])]
    assert np.array_equal(*kernels) == copied
    assert equal(online, extra["target"]) == copied


def test_unknown_start_of_the_target_is_refused():
    with pytest.raises(ValueError, match="unknown target_init 'online'; choose one of: own, copy"):
        start(byol.make, target_init="online")


@pytest.mark.parametrize(
    ("make", "module", "layer", "fields"),
    [
        (byol.make, "projector", "dense1", {}),
        (byol.make, "predictor", "dense1", {}),
        (byol.make, "predictor", "dense1", {"output_norm": True}),
        (moco_v3.make, "predictor", "dense1", {}),
        (barlow_twins.make, "head", "dense2", {}),
        (vicreg.make, "head", "dense2", {}),
    ],
)
def test_last_layers_have_no_bias_unless_asked_for(make, module, layer, fields):
    _, params, _ = start(make, **fields)
    assert params[module][layer].keys() == {"kernel"}
    _, params, _ = start(make, last_bias=True, **fields)
    assert params[module][layer].keys() == {"kernel", "bias"}
    hidden = [name for name in params[module] if name.startswith("dense") and name != layer]
    assert hidden
    assert all(params[module][name].keys() == {"kernel"} for name in hidden)


@pytest.mark.parametrize("fields", [{}, {"last_bias": True}])
def test_no_bias_comes_before_a_norm_that_would_cancel_it(fields):
    _, params, _ = start(byol.make, output_norm=True, **fields)
    assert params["projector"]["dense1"].keys() == {"kernel"}
    _, params, _ = start(moco_v3.make, predictor_norm=True, **fields)
    assert params["predictor"]["dense1"].keys() == {"kernel"}


def test_output_norm_standardises_each_view_of_both_projections():
    """The normalised columns have mean 0 and variance v / (v + 1e-5), for a raw variance v."""
    method, params, extra = start(byol.make, output_norm=True)
    assert params["projector"].keys() == {"dense0", "bn0", "dense1"}  # no scale, no bias
    outputs, _ = method.encode(params, extra, BATCH, jax.random.key(0))
    hidden = np.float64(outputs["target"])
    assert hidden.shape == (B, 2, 3)
    np.testing.assert_allclose(hidden.mean(0), np.zeros((2, 3)), atol=1e-5)
    np.testing.assert_allclose(hidden.var(0), np.ones((2, 3)), rtol=1e-3)
    # The predictor sees standardised projections of the online network.
    x = linear.flat(BATCH["views"])[:, 0]
    z = x @ np.float64(params["encoder"]["dense"]["kernel"])
    z = np.maximum(standardised(z @ np.float64(params["projector"]["dense0"]["kernel"])), 0)
    z = standardised(z @ np.float64(params["projector"]["dense1"]["kernel"]))
    z = np.maximum(standardised(z @ np.float64(params["predictor"]["dense0"]["kernel"])), 0)
    z = z @ np.float64(params["predictor"]["dense1"]["kernel"])
    np.testing.assert_allclose(outputs["prediction"][:, 0], z, rtol=1e-3, atol=1e-4)
    raw, _, _ = encoded(byol.make)
    assert np.abs(np.float64(raw["target"]).var(0) - 1).max() > 0.1


def standardised(x):
    """BatchNorm over rows, with scale 1 and bias 0."""
    return (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)


def forward(x, head):
    """Returns (output of a head of three layers, raw hidden activations of its first layer)."""
    first = x @ np.float64(head["dense0"]["kernel"])
    z = np.maximum(standardised(first), 0)
    z = np.maximum(standardised(z @ np.float64(head["dense1"]["kernel"])), 0)
    return z @ np.float64(head["dense2"]["kernel"]), first


@pytest.mark.parametrize("name", JOINT)
@pytest.mark.parametrize("apart", [True, False])
def test_views_are_normalised_as_if_forwarded_one_by_one_or_together(name, apart):
    outputs, stats, params = encoded(JOINT[name], apart=apart)
    x = linear.flat(BATCH["views"]) @ np.float64(params["encoder"]["dense"]["kernel"])
    if apart:
        views = [forward(x[:, view], params["head"]) for view in range(2)]
        z, first = (np.stack(arrays, 1) for arrays in zip(*views, strict=True))
        mean, var = first.mean((0, 1)), first.var(0).mean(0)
    else:
        z, first = (a.reshape(B, 2, -1) for a in forward(x.reshape(2 * B, -1), params["head"]))
        mean, var = first.mean((0, 1)), first.var((0, 1))
    np.testing.assert_allclose(outputs["z"], z, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(stats["head"]["bn0"]["mean"], 0.1 * mean, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(stats["head"]["bn0"]["var"], 0.9 + 0.1 * var, rtol=1e-4)
    default, _, _ = encoded(JOINT[name])
    assert np.array_equal(default["z"], outputs["z"]) == apart


@pytest.mark.parametrize(
    ("make", "fields"),
    [
        (barlow_twins.make, {}),
        (simclr.make, {}),
        (simclr_v2.make, {}),
        (simclr_v2.make, {"memory_size": 2 * B}),
    ],
)
def test_a_scale_that_trains_nothing_is_refused(make, fields):
    for scale in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="scale must be a finite number above 0"):
            start(make, scale=scale, **fields)


@pytest.mark.parametrize(
    ("make", "fields"),
    [
        (barlow_twins.make, {}),
        (simclr.make, {}),
        (simclr_v2.make, {}),
        (simclr_v2.make, {"memory_size": 2 * B}),
    ],
)
def test_scale_multiplies_loss_and_gradient_but_no_metric(make, fields):
    results = {}
    for scale in (1.0, 2.0):
        method, params, extra = start(make, scale=scale, **fields)

        def loss(params, method=method, extra=extra):
            key = jax.random.key(0)
            outputs, _ = method.encode(params, extra, BATCH, key)
            value, (_, metrics) = method.objective(params, extra, outputs, key, 0)
            return value, metrics

        (value, metrics), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        results[scale] = value, metrics, gradient
    (one, metrics, gradient), (two, same_metrics, twice) = results.values()
    np.testing.assert_allclose(two, 2 * one, rtol=1e-6)
    assert equal(metrics, same_metrics)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(b, 2 * a, rtol=1e-4, atol=1e-6), gradient, twice
    )


@pytest.mark.parametrize("name", configuration.OLD_VALUES)
def test_table_of_old_values_names_hyperparameters_of_the_method(name):
    keywords = inspect.signature(methods.get(name)).parameters
    for keyword, old in configuration.OLD_VALUES[name].items():
        default = keywords[keyword].default
        assert type(default) is type(old)
        assert method_fields.defaults(name)[keyword] == default
