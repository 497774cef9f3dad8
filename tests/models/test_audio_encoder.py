"""The encoder of waveforms: causality, padding, shapes, and its GRU against PyTorch's equations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import models
from ssl_jax.models.audio import AudioEncoder, StepPredictor
from ssl_jax.models.gru import GRU

SMALL = {"strides": (5, 2), "kernels": (10, 4), "channels": 6, "context": 5}
X = np.random.default_rng(0).normal(size=(3, 80)).astype(np.float32)


@pytest.fixture(scope="module", params=["none", "channel"])
def case(request):
    encoder = AudioEncoder(**SMALL, norm=request.param)
    variables = encoder.init(jax.random.key(0), X, True)
    return encoder, variables, jax.jit(lambda x: encoder.apply(variables, x, method="sequences"))


def test_the_paper_has_128_frames_of_10_ms():
    encoder = models.get("audio_cnn_gru", dtype=jnp.float32)
    assert encoder.stride == 160
    x = jax.ShapeDtypeStruct((2, 20480), jnp.float32)
    variables = jax.eval_shape(encoder.init, jax.random.key(0), x, True)
    local, context, valid = jax.eval_shape(
        lambda v, x: encoder.apply(v, x, method="sequences"), variables, x
    )
    assert (local.shape, context.shape) == ((2, 128, 512), (2, 128, 256))
    assert valid.shape == (2, 128)


@pytest.mark.parametrize("sample", [0, 37, 40, 79])
def test_a_later_sample_changes_no_earlier_frame(case, sample):
    _, _, sequences = case
    changed = X.copy()
    changed[0, sample] += 1.0
    before, after = sequences(X), sequences(changed)
    first = sample // 10  # the frame of the sample
    for name in ("local", "context"):
        a, b = np.asarray(getattr(before, name)), np.asarray(getattr(after, name))
        np.testing.assert_array_equal(a[0, :first], b[0, :first])
        np.testing.assert_array_equal(a[1:], b[1:])
        assert not np.array_equal(a[0, first], b[0, first])


def test_features_do_not_depend_on_padding(case):
    encoder, variables, _ = case
    samples = np.array([80, 34, 3], np.int32)
    rng = np.random.default_rng(1)
    for longer in (0, 40):
        padded = np.pad(X, ((0, 0), (0, longer)))
        noise = np.arange(80 + longer)[None] >= samples[:, None]
        padded = np.where(noise, rng.normal(size=padded.shape), padded).astype(np.float32)
        got = encoder.apply(variables, {"waveform": padded, "samples": samples}, False)
        for row, length in enumerate((80, 30, 10)):  # whole frames, at least one
            alone = padded[row : row + 1, :length]
            np.testing.assert_allclose(
                got[row], encoder.apply(variables, alone, False)[0], rtol=1e-5, atol=1e-6
            )
    frames, valid = encoder.apply(variables, {"waveform": X, "samples": samples}, method="frames")
    assert valid.sum(1).tolist() == [8, 3, 1]
    want = encoder.apply(variables, {"waveform": X, "samples": samples}, False)
    np.testing.assert_allclose(frames[1][:3].mean(0), want[1], rtol=1e-5, atol=1e-6)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_gru_equals_the_equations_of_pytorch():
    x = np.random.default_rng(2).normal(size=(2, 7, 3))
    layer = GRU(4)
    with jax.enable_x64(True):
        params = layer.init(jax.random.key(1), jnp.asarray(x))["params"]
        rng = np.random.default_rng(3)
        params = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape)), params)
        got = GRU(4, dtype=jnp.float64).apply({"params": params}, jnp.asarray(x))
    kernel, bias = (np.asarray(params["input"][name]) for name in ("kernel", "bias"))
    hidden, hidden_bias = np.asarray(params["hidden_kernel"]), np.asarray(params["hidden_bias"])
    for row in range(2):
        h = np.zeros(4)
        for t in range(7):
            a, b = x[row, t] @ kernel + bias, h @ hidden + hidden_bias
            r, z = sigmoid(a[:4] + b[:4]), sigmoid(a[4:8] + b[4:8])
            n = np.tanh(a[8:] + r * b[8:])
            h = (1 - z) * n + z * h
            np.testing.assert_allclose(got[row, t], h, rtol=1e-12)


def test_every_step_has_its_own_map():
    layer, x = StepPredictor(3, 4), jnp.asarray(X[:, :5])
    params = layer.init(jax.random.key(0), x)["params"]
    got = layer.apply({"params": params}, x)
    want = np.stack([X[:, :5] @ np.asarray(params["kernel"][k]) for k in range(3)], 1)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "shape", "message"),
    [
        ({"strides": (5,)}, (2, 80), "as many kernels as strides"),
        ({"kernels": (4, 4)}, (2, 80), "each kernel at least as long as its stride"),
        ({"norm": "batch"}, (2, 80), "model.norm='batch': choose one of none, channel"),
        ({}, (2, 9), "at least the 10 samples of a frame"),
        ({}, (2, 80, 1), r"waveforms of shape \(2, 80, 1\)"),
    ],
)
def test_bad_options_are_named(fields, shape, message):
    with pytest.raises(ValueError, match=message):
        AudioEncoder(**SMALL | fields).init(jax.random.key(0), jnp.zeros(shape), True)
