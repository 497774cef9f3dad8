"""CPC on sound: which frames are predicted, by what, and among which negatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import methods
from ssl_jax.methods import Run
from ssl_jax.methods.cpc_audio import make
from ssl_jax.models.audio import AudioEncoder
from ssl_jax.models.resnet import BasicBlock, ResNet

B, FRAMES, STEPS, WINDOW = 4, 6, 2, 60
ENCODER = AudioEncoder(strides=(5, 2), kernels=(10, 4), channels=6, context=5)
INDEX = jnp.arange(B, dtype=jnp.int32) + 10
VIEWS = np.random.default_rng(0).normal(size=(B, 1, WINDOW)).astype(np.float32)
GROUP = np.array([1, 0, 1, 0], np.int32)


def seen(window=WINDOW, group=True):
    arrays = {"views": jax.ShapeDtypeStruct((1, window), jnp.float32)}
    return arrays | ({"group": jax.ShapeDtypeStruct((), jnp.int32)} if group else {})


def run(**fields):
    return Run(seen(**fields), 10, B, 100)


def outputs(views=VIEWS, **options):
    method = make(ENCODER, run(), steps=STEPS, **options)
    batch = {"views": jnp.asarray(views), "index": INDEX, "group": jnp.asarray(GROUP)}
    params, extra = method.init(jax.random.key(1), batch)
    encoded, _ = jax.jit(method.encode)(params, extra, batch, jax.random.key(2))
    loss, _ = method.objective(params, extra, encoded, jax.random.key(3), 0)
    return params, encoded, float(loss)


def by_hand(params, allowed):
    """Loss prediction by prediction, among the frames of the examples that `allowed` names."""
    local, context, _ = ENCODER.apply(
        {"params": params["encoder"]}, jnp.asarray(VIEWS[:, 0]), method="sequences"
    )
    local, context, maps = (np.asarray(x, np.float64) for x in
                            (local, context, params["predictor"]["kernel"]))  # fmt: skip
    losses = {}
    for i in range(B):
        candidates = local[allowed(i)].reshape(-1, 6)
        for t in range(FRAMES):
            for k in range(1, STEPS + 1):
                if t + k < FRAMES:
                    prediction = context[i, t] @ maps[k - 1]
                    scores = candidates @ prediction
                    losses[i, t, k] = np.log(np.exp(scores).sum()) - local[i, t + k] @ prediction
    return losses


@pytest.mark.parametrize(
    ("negatives", "allowed"),
    [
        ("batch", lambda i: np.arange(B)),
        ("group", lambda i: np.flatnonzero(GROUP[i] == GROUP)),
        ("sequence", lambda i: np.array([i])),
    ],
)
def test_the_loss_is_that_of_every_context_and_step(negatives, allowed):
    params, _, loss = outputs(negatives=negatives)
    losses = by_hand(params, allowed)
    assert len(losses) == B * (FRAMES - 1 + FRAMES - 2)
    assert loss == pytest.approx(np.mean(list(losses.values())), rel=1e-5)


def test_drawn_contexts_predict_every_step():
    params, encoded, loss = outputs(contexts=2)
    positive = np.asarray(encoded["positive"]).reshape(B, 2, STEPS)
    places = positive[..., 0] - 1
    np.testing.assert_array_equal(positive, places[..., None] + [1, 2])
    assert 0 <= places.min() < places.max() < FRAMES - STEPS
    assert all(len(set(row)) == 2 for row in places.tolist())
    assert len({tuple(row) for row in places.tolist()}) > 1  # examples differ
    losses = by_hand(params, lambda i: np.arange(B))
    drawn = [losses[i, t, k] for i in range(B) for t in places[i] for k in (1, 2)]
    assert loss == pytest.approx(np.mean(drawn), rel=1e-5)


def test_a_later_sample_changes_no_earlier_prediction():
    changed = VIEWS.copy()
    changed[:, :, 30:] += 1.0  # from frame 3 on
    _, before, _ = outputs()
    _, after, _ = outputs(changed)
    pairs = [(t, k) for t in range(FRAMES) for k in (1, 2) if t + k < FRAMES]
    earlier = np.array([t < 3 for t, _ in pairs])
    a, b = np.asarray(before["predictions"]), np.asarray(after["predictions"])
    np.testing.assert_array_equal(a[:, earlier], b[:, earlier])
    assert (a[:, ~earlier] != b[:, ~earlier]).any(-1).all()


def test_features_are_the_mean_of_contexts_over_valid_frames():
    method = make(ENCODER, run(), steps=STEPS)
    params, _, _ = outputs()
    x = {"waveform": jnp.asarray(VIEWS[:, 0]), "samples": jnp.asarray([60, 40, 25, 60])}
    got = method.features(params, {}, x)
    assert got.dtype == jnp.float32
    for row, frames in enumerate((6, 4, 2, 6)):
        _, context, _ = ENCODER.apply(
            {"params": params["encoder"]}, VIEWS[row : row + 1, 0], method="sequences"
        )
        np.testing.assert_allclose(got[row], context[0, :frames].mean(0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "options", "message"),
    [
        ({}, {"negatives": "speaker"}, "choose one of: batch, group, sequence"),
        ({"group": False}, {"negatives": "group"}, "set data.group"),
        ({}, {"steps": 6}, "window of 6 frames: steps must be"),
        ({}, {"contexts": 5}, "contexts at most frames - steps"),
        ({}, {"scale": 0.0}, "scale must be positive"),
    ],
)
def test_bad_options_are_named(fields, options, message):
    with pytest.raises(ValueError, match=message):
        make(ENCODER, run(**fields), **{"steps": STEPS} | options)


def test_only_its_encoder_is_accepted():
    with pytest.raises(ValueError, match="needs the encoder audio_cnn_gru"):
        make(ResNet(BasicBlock, (1,)), run())
    assert "cpc_audio" in methods.names()
