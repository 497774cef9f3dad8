"""Heads against their arithmetic in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.models.chain import Chain
from ssl_jax.models.heads import MLP, Classifier, DropoutMLP, ProjectionHead

FEATURES = np.random.default_rng(0).normal(size=(16, 12)).astype(np.float32)


def _oracle(x, params, depth, upto=None):
    x = x.astype(np.float64)
    for i in range(depth if upto is None else upto):
        x = x @ np.asarray(params[f"dense{i}"]["kernel"], np.float64)
        x = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5) * np.asarray(params[f"bn{i}"]["scale"])
        if i < depth - 1:
            x = np.maximum(x + np.asarray(params[f"bn{i}"]["bias"]), 0)
    return x


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_projection_head_layers_and_output(depth):
    head = ProjectionHead(depth=depth, hidden_dim=20, output_dim=6)
    shapes = jax.eval_shape(lambda: head.init(jax.random.key(0), FEATURES, True))["params"]
    widths = [12] + [20] * (depth - 1) + [6]
    for i in range(depth):
        last = i == depth - 1
        assert {k: v.shape for k, v in shapes[f"dense{i}"].items()} == {
            "kernel": (widths[i], widths[i + 1])
        }
        assert set(shapes[f"bn{i}"]) == ({"scale"} if last else {"scale", "bias"})
    assert len(shapes) == 2 * depth
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda s: rng.normal(size=s.shape).astype(np.float32), shapes)
    stats = {f"bn{i}": {"mean": np.zeros(w), "var": np.ones(w)} for i, w in enumerate(widths[1:])}
    stats = jax.tree.map(np.float32, stats)
    apply = jax.jit(
        lambda x: head.apply(
            {"params": params, "batch_stats": stats}, x, True, mutable=["batch_stats"]
        )[0]
    )
    np.testing.assert_allclose(apply(FEATURES), _oracle(FEATURES, params, depth), atol=2e-5)


def test_depth_0_is_the_identity():
    out, variables = ProjectionHead(depth=0).init_with_output(jax.random.key(0), FEATURES, True)
    np.testing.assert_array_equal(out, FEATURES)
    assert not variables


def test_projection_head_defaults_match_simclr():
    head = ProjectionHead(dtype=jnp.bfloat16)
    features = jax.ShapeDtypeStruct((4, 2048), jnp.float32)
    out, variables = jax.eval_shape(
        lambda x: head.init_with_output(jax.random.key(0), x, True), features
    )
    assert (out.shape, out.dtype) == ((4, 128), jnp.float32)
    assert variables["params"]["dense0"]["kernel"].shape == (2048, 2048)
    kernel = ProjectionHead(depth=1).init(jax.random.key(0), FEATURES, True)["params"]["dense0"]
    np.testing.assert_allclose(np.std(kernel["kernel"]), 0.01, rtol=0.08)  # 1536 draws


def test_negative_depth_raises():
    with pytest.raises(ValueError, match="depth -1"):
        ProjectionHead(depth=-1).init(jax.random.key(0), FEATURES, True)


def _limits(dense_init, fan_in):
    """Largest weight, standard deviation of the weights, and largest bias."""
    if dense_init == "torch":  # uniform
        return fan_in**-0.5, (3 * fan_in) ** -0.5, fan_in**-0.5
    if dense_init == "normal_0.02":
        return np.inf, 0.02, 0
    # A normal distribution that is cut off at 2 deviations and then scaled to variance 1 / fan-in.
    return 2 / 0.8796 * fan_in**-0.5, fan_in**-0.5, 0


@pytest.mark.parametrize("dense_init", ["lecun_normal", "torch", "normal_0.02"])
def test_mlp_starts_as_the_source_of_its_method(dense_init):
    head = MLP((500, 300), hidden_norm=False, dense_init=dense_init)
    params = head.init(jax.random.key(0), FEATURES, True)["params"]
    for layer, fan_in in (("dense0", 12), ("dense1", 500)):
        largest, deviation, largest_bias = _limits(dense_init, fan_in)
        kernel, bias = params[layer]["kernel"], params[layer]["bias"]
        np.testing.assert_allclose(np.std(kernel), deviation, rtol=0.03)  # 6000 or more draws
        assert np.abs(np.mean(kernel)) < 5 * deviation / np.sqrt(kernel.size)
        assert np.abs(kernel).max() <= largest
        assert np.abs(bias).max() <= largest_bias
        if largest_bias:
            assert np.abs(bias).max() > 0.95 * largest_bias  # 300 or more draws


def test_initialisation_of_a_head_leaves_the_encoder_unchanged():
    images = np.zeros((2, 1, 12), np.float32)  # a dense layer stands for the encoder

    def start(dense_init):
        modules = {"encoder": MLP((7,)), "head": MLP((5,), dense_init=dense_init)}
        return Chain(0, 1, **modules).init(jax.random.key(0), images)[0]

    one, other = start("lecun_normal"), start("torch")
    for x, y in zip(
        jax.tree.leaves(one["encoder"]), jax.tree.leaves(other["encoder"]), strict=True
    ):
        np.testing.assert_array_equal(x, y)
    assert np.any(one["head"]["dense0"]["kernel"] != other["head"]["dense0"]["kernel"])


def test_unknown_initialisation_of_an_mlp_is_refused():
    with pytest.raises(ValueError, match=r"lecun_normal, torch.*got 'keras'"):
        MLP((5,), dense_init="keras").init(jax.random.key(0), FEATURES, True)


def test_dropout_mlp_drops_and_rescales_hidden_activations():
    key = jax.random.key(3)
    full, dropping = DropoutMLP((400, 2), 0.0), DropoutMLP((400, 2), 0.25)
    params = full.init(jax.random.key(0), FEATURES, key)["params"]
    first, last = (jax.tree.map(np.float64, params[f"dense{i}"]) for i in range(2))
    hidden = FEATURES @ first["kernel"] + first["bias"]
    hidden = np.where(hidden > 0, hidden, 0.2 * hidden)
    want = hidden @ last["kernel"] + last["bias"]
    np.testing.assert_allclose(full.apply({"params": params}, FEATURES, key), want, atol=1e-4)
    # With one output per hidden activation, dropped activations are 0 and the others are scaled up.
    eye = params | {"dense1": {"kernel": jnp.eye(400), "bias": jnp.zeros(400)}}
    square = DropoutMLP((400, 400), 0.25)
    outputs = np.asarray(square.apply({"params": eye}, FEATURES, key))
    dropped = outputs == 0
    assert 0.23 < dropped.mean() < 0.27
    np.testing.assert_allclose(outputs[~dropped], hidden[~dropped] / 0.75, rtol=1e-3, atol=1e-4)
    assert not (dropped == dropped[0]).all()
    same_key, other_key = (
        dropping.apply({"params": params}, FEATURES, jax.random.key(i)) for i in (3, 4)
    )
    np.testing.assert_array_equal(same_key, dropping.apply({"params": params}, FEATURES, key))
    assert np.abs(same_key - other_key).max() > 0.01


@pytest.mark.parametrize("upto", [0, 1, 2, 3])
def test_first_layers_equal_those_of_the_whole_head(upto):
    head = ProjectionHead(depth=3, hidden_dim=20, output_dim=6)
    params = head.init(jax.random.key(0), FEATURES, True)["params"]
    first_layers = head.clone(upto=upto)
    assert set(first_layers.init(jax.random.key(0), FEATURES, True).get("params", {})) == {
        f"{kind}{i}" for kind in ("dense", "bn") for i in range(upto)
    }
    # In fine-tuning, the parameters of later layers do not exist.
    first_params = {name: tree for name, tree in params.items() if int(name[-1]) < upto}
    outputs, _ = first_layers.apply(
        {"params": first_params}, FEATURES, True, mutable=["batch_stats"]
    )
    np.testing.assert_allclose(outputs, _oracle(FEATURES, params, 3, upto), rtol=2e-4, atol=2e-4)


def test_last_layer_of_an_mlp_computes_in_float32():
    """Logits and predictions are not rounded to bfloat16."""
    head = MLP((8, 5), dtype=jnp.bfloat16)
    outputs, _ = head.init_with_output(jax.random.key(0), FEATURES, True)
    assert outputs.dtype == jnp.float32
    rounded = outputs.astype(jnp.bfloat16).astype(jnp.float32)
    assert np.mean(np.asarray(outputs) == np.asarray(rounded)) < 0.1


def test_classifier_starts_with_zero_logits():
    classifier = Classifier(5)
    logits, variables = classifier.init_with_output(
        jax.random.key(0), FEATURES.astype(jnp.bfloat16), True
    )
    assert logits.dtype == jnp.float32
    np.testing.assert_array_equal(logits, np.zeros((16, 5)))
    assert variables["params"]["dense"]["kernel"].shape == (12, 5)
