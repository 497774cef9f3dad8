"""CLIP and SigLIP: learned temperature and bias, towers, published numbers, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from configs import clip as config_file
from ssl_jax import components, losses, methods, testing
from ssl_jax.methods import clip
from ssl_jax.optim import optimizers

SMALL = {"embed_dim": 6, "text_width": 8, "text_depth": 1, "text_heads": 2}
SEEN = tiny.seen(1, 8) | {"tokens": jax.ShapeDtypeStruct((5,), jnp.int32)}
SYMBOLS = {"tokens": 30}


def make(encoder=None, seen=SEEN, symbols=SYMBOLS, **fields):
    run = methods.Run(seen, 10, 16, 64, symbols=symbols)
    return clip.make(encoder or tiny.Encoder(), run, **SMALL | fields)


def batch(count=16):
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 30, (count, 5))
    tokens[::3, 3:] = -1
    return {
        "views": jnp.asarray(rng.random((count, 1, 8, 8, 3)), jnp.float32),
        "tokens": jnp.asarray(tokens, jnp.int32),
        "index": jnp.arange(count, dtype=jnp.int32),
    }


def value(method, params, extra, log_scale, bias=None):
    key = jax.random.key(0)
    logits = {"log_scale": log_scale} | ({} if bias is None else {"bias": bias})
    params = params | {"logits": logits}
    outputs, _ = method.encode(params, extra, batch(), key)
    return method.objective(params, extra, outputs, key, jnp.zeros((), jnp.int32))


def rows(method, params, extra):
    outputs, _ = method.encode(params, extra, batch(), jax.random.key(0))
    unit = [np.asarray(outputs[name], np.float64) for name in ("image", "text")]
    return [x / np.linalg.norm(x, axis=1, keepdims=True) for x in unit]


def test_clip_is_the_cross_entropy_of_both_directions():
    """Figure 3 of the paper, with logits scaled by exp(t)."""
    method = make()
    params, extra = method.init(jax.random.key(1), batch())
    assert params["logits"]["log_scale"] == pytest.approx(np.log(1 / 0.07))
    assert set(params["logits"]) == {"log_scale"}
    x, y = rows(method, params, extra)
    logits = x @ y.T / 0.07
    partner = np.diagonal(logits)
    want = np.mean([np.log(np.exp(logits).sum(axis)) - partner for axis in (0, 1)])
    loss, (_, metrics) = value(method, params, extra, params["logits"]["log_scale"])
    assert float(loss) == pytest.approx(want, rel=1e-5)
    assert float(metrics["temperature"]) == pytest.approx(0.07)


def test_siglip_starts_at_the_papers_scale_and_bias():
    method = make(**config_file.SIGLIP)
    params, extra = method.init(jax.random.key(1), batch())
    start = {name: float(x) for name, x in params["logits"].items()}
    assert start == pytest.approx({"log_scale": np.log(10), "bias": -10.0})
    x, y = rows(method, params, extra)
    sign = 2 * np.eye(16) - 1
    want = np.logaddexp(0, -sign * (10 * x @ y.T - 10)).sum() / 16
    assert float(value(method, params, extra, **params["logits"])[0]) == pytest.approx(want, 1e-5)


@pytest.mark.parametrize("name", ["log_scale", "bias"])
def test_gradients_of_scale_and_bias_are_those_of_differences(name):
    with jax.enable_x64(True):
        method = make(tiny.Encoder(dtype=jnp.float64), loss="sigmoid", temperature=0.2, bias=-1.5)
        params, extra = method.init(jax.random.key(1), batch())
        at = {"log_scale": jnp.float64(1.5), "bias": jnp.float64(-1.5)}

        @jax.jit
        def loss(x):
            return value(method, params, extra, **at | {name: x})[0]

        step = 1e-5
        want = (loss(at[name] + step) - loss(at[name] - step)) / (2 * step)
        assert float(jax.grad(loss)(at[name])) == pytest.approx(float(want), rel=1e-7)
        assert abs(want) > 1e-3


def test_the_scale_has_a_limit_from_which_it_can_return():
    method = make()
    params, extra = method.init(jax.random.key(1), batch())
    limit = jnp.log(100.0)
    at, above = (value(method, params, extra, s) for s in (limit, limit + 1))
    assert float(above[0]) == pytest.approx(float(at[0]), rel=1e-6)
    assert float(above[1][1]["temperature"]) == pytest.approx(0.01)
    slopes = {
        sign: jax.grad(lambda x, sign=sign: sign * clip.at_most(x, 2.0)) for sign in (1.0, -1.0)
    }
    assert [slopes[1.0](x) for x in (1.0, 3.0)] == [1, 1]  # descent lowers x
    assert [slopes[-1.0](x) for x in (1.0, 3.0)] == [-1, 0]  # descent would raise x further


def test_the_sigmoid_loss_needs_no_limit_of_the_scale():
    for limit in (0.0, 200.0):
        assert make(loss="sigmoid", max_scale=limit).towers


def test_the_loss_at_the_largest_scale_is_that_of_float64():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 16))
    x, y = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (x, x + rng.normal(size=x.shape)))
    logits = clip.LARGEST_SCALE * x @ y.T
    want = np.mean([np.logaddexp.reduce(logits, axis) - np.diagonal(logits) for axis in (0, 1)])
    arrays = (jnp.asarray(z, jnp.float32) for z in (x, y))
    got, _ = losses.paired_info_nce(*arrays, temperature=1 / jnp.float32(clip.LARGEST_SCALE))
    assert float(got) == pytest.approx(want, rel=1e-4)


def test_towers_are_unit_rows_of_one_space_and_features_come_before_it():
    method = make()
    params, extra = method.init(jax.random.key(1), batch())
    arrays = batch()
    image = method.towers["image"](params, extra, arrays["views"][:, 0])
    text = method.towers["text"](params, extra, arrays["tokens"])
    assert image.shape == text.shape == (16, 6)
    for x in (image, text):
        np.testing.assert_allclose(np.linalg.norm(x, axis=1), 1, rtol=1e-5)
    features = method.features(params, extra, arrays["views"][:, 0])
    assert features.shape == (16, 8)
    head = params["image_head"]["dense0"]["kernel"]
    mapped = features @ head
    np.testing.assert_allclose(
        image, mapped / np.linalg.norm(mapped, axis=1, keepdims=True), rtol=1e-4, atol=1e-6
    )
    _, want = rows(method, params, extra)
    np.testing.assert_allclose(text, want, rtol=1e-4, atol=1e-6)


def test_two_devices_take_the_step_of_one():
    """The contract tests compare one device with eight."""
    with jax.enable_x64(True):
        encoder = tiny.Encoder(dtype=jnp.float64)
        trial = testing.Trial(clip.make, encoder, SEEN, SMALL | {"loss": "sigmoid"}, SYMBOLS)
        (one, want), (two, got) = trial.first, trial.train(1, devices=2)
        for x, y in zip(
            *map(jax.tree.leaves, ((two.params, got), (one.params, want))), strict=True
        ):
            np.testing.assert_allclose(x, y, rtol=0, atol=1e-9 * max(np.abs(y).max(), 1e-2))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"loss": "softmax"}, "info_nce, sigmoid"),
        ({"temperature": 0.0}, "temperature"),
        ({"temperature": 0.005}, "1 / max_scale"),
        ({"max_scale": 0.0}, r"in \(0, 100\].*float32"),
        ({"max_scale": 101.0}, r"in \(0, 100\].*float32"),
        ({"max_scale": -1.0}, r"in \(0, 100\].*float32"),
        ({"max_scale": float("nan")}, r"in \(0, 100\].*float32"),
        ({"seen": tiny.seen(2, 8), "symbols": SYMBOLS}, "augment.views to 1"),
        ({"symbols": {}}, "captions:SOURCE"),
    ],
)
def test_invalid_arguments_raise(fields, message):
    with pytest.raises(ValueError, match=message):
        make(**fields)


def test_recipes_have_the_published_numbers():
    """CLIP's tables 18 and 20; SigLIP's section 4 as far as it is recalled."""
    published = {
        "vit_b16": (5e-4, 0.2, 0.98, 2000, 77, 49_408, 512, 0.07, 100.0),
        "siglip_b16": (1e-3, 1e-4, 0.95, 20_000, 16, 32_000, 768, 0.1, 0.0),
    }
    for variant, numbers in published.items():
        config = config_file.get_config(variant)
        optim, method = config.optim, config.method
        peak = optimizers.learning_rate(optim.lr, optim.lr_rule, config.train.batch_size)
        warmup = components.warmup_steps(optim.warmup_epochs, config, config_file.WIT)
        assert config.train.batch_size == 32_768
        assert (
            *(peak, optim.weight_decay, optim.b2, warmup, config.augment.text_length),
            *(config.data.vocabulary, method.embed_dim, method.temperature, method.max_scale),
        ) == numbers
    assert components.total_steps(config_file.get_config("vit_b16"), config_file.WIT) == 390_625
