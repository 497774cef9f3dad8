"""CPC on sound: contrastive predictive coding of waveforms (van den Oord et al. 2018)."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssl_jax.losses import predictive_info_nce
from ssl_jax.methods import Batch, Method, Run, Tree
from ssl_jax.methods._keys import example_keys
from ssl_jax.methods._views import check_views
from ssl_jax.models.audio import AudioEncoder, Sequences, StepPredictor

NEGATIVES = ("batch", "group", "sequence")


def make(
    encoder: AudioEncoder,
    run: Run,
    *,
    steps: int = 12,
    negatives: str = "batch",
    contexts: int = 0,
    scale: float = 1.0,
) -> Method:
    """CPC on raw waveforms (arXiv 1807.03748, section 3.1).

    Convolutions encode a window of sound as frames. A recurrent network reads the frames and gives
    each a context, which knows only the samples up to its own. From every context, one linear map
    W_k per step predicts the encodings of the next frames. The loss is InfoNCE of the predicted
    frame among all frames of the candidates (`losses.predictive_info_nce`).

    Features are the mean of the contexts over the frames of a recording (paper: contexts of single
    frames; protocol `frames`).

    Args:
      encoder: an `audio.AudioEncoder`.
      run: one view.
      steps: number of frames after a context that it predicts; 12 frames of 10 ms in the paper.
      negatives: frames among which the predicted frame is found: those of the whole batch, of the
        windows of the same group (`data.group`, the paper's "same speaker") or of the same window
        ("sequence").
      contexts: number of contexts of a window that predict, drawn at random among those with a
        frame at every step; 0 takes all contexts, and those near the end predict fewer steps.
      scale: factor of the scores.

    Raises:
      ValueError: if the encoder is not an `AudioEncoder`, the run does not have one view, the
        window has too few frames, "group" has no group, or a hyperparameter is out of range.
    """
    if not isinstance(encoder, AudioEncoder):
        raise ValueError("CPC on sound needs the encoder audio_cnn_gru: set model.name")
    check_views(run, 1)
    if negatives not in NEGATIVES:
        raise ValueError(f"unknown negatives {negatives!r}; choose one of: {', '.join(NEGATIVES)}")
    if negatives == "group" and "group" not in run.seen:
        raise ValueError(
            "negatives 'group' needs groups of recordings: set data.group to a field of "
            "data.pattern or to 'folder', or method.negatives to 'batch'"
        )
    frames = run.seen["views"].shape[1] // encoder.stride
    if not 1 <= steps < frames or not 0 <= contexts <= frames - steps:
        raise ValueError(
            f"steps {steps} and contexts {contexts} in a window of {frames} frames: steps must be "
            "at least 1 and less than the frames, and contexts at most frames - steps. Change "
            "augment.window, method.steps or method.contexts"
        )
    if not scale > 0:
        raise ValueError(f"scale must be positive, got {scale}")
    pairs = _pairs(frames, steps)
    predictor = StepPredictor(steps, encoder.channels, encoder.dtype)

    def sequences(params: Tree, waveforms: jax.Array) -> Sequences:
        return encoder.apply({"params": params}, waveforms, method="sequences")  # type: ignore

    def init(key: jax.Array, batch: Batch) -> tuple[Tree, Tree]:
        keys = jax.random.split(key)
        waveforms = batch["views"][:2, 0]
        weights: Any = encoder.init(keys[0], waveforms, True)["params"]
        context = sequences(weights, waveforms).context
        predictions = predictor.init(keys[1], context)["params"]
        return {"encoder": weights, "predictor": predictions}, {"batch_stats": {}}

    def encode(params: Tree, extra: Tree, batch: Batch, key: jax.Array):
        del extra
        local, context, valid = sequences(params["encoder"], batch["views"][:, 0])
        del valid  # a window holds whole frames
        outputs = {"targets": local, "features": context.mean(1)[:, None]}
        if negatives == "group":
            outputs["group"] = batch["group"]
        if contexts:
            places = _draw(key, batch["index"], frames - steps, contexts)
            drawn = jnp.take_along_axis(context, places[..., None], 1)
            predictions: Any = predictor.apply({"params": params["predictor"]}, drawn)
            ahead = jnp.arange(1, steps + 1, dtype=jnp.int32)
            outputs["positive"] = _flat(places[..., None] + ahead[None, None])
            return outputs | {"predictions": _flat(predictions)}, {}
        every: Any = predictor.apply({"params": params["predictor"]}, context)
        # Context t and step k are element t * steps + k - 1.
        taken = pairs[:, 0] * steps + pairs[:, 1] - 1
        return outputs | {"predictions": _flat(every)[:, taken]}, {}

    def objective(params: Tree, extra: Tree, outputs: Tree, key: jax.Array, step: jax.Array):
        del params, key, step
        targets = outputs["targets"]
        by_example = jnp.arange(len(targets), dtype=jnp.int32)
        groups = {"batch": None, "group": outputs.get("group"), "sequence": by_example}
        positive = outputs["positive"] if contexts else pairs.sum(1)
        value, metrics = predictive_info_nce(
            outputs["predictions"], targets, positive, groups=groups[negatives], scale=scale
        )
        return value, (extra, metrics)

    def features(params: Tree, extra: Tree, x: Tree) -> jax.Array:
        del extra
        return jnp.asarray(encoder.apply({"params": params["encoder"]}, x, False), jnp.float32)

    return Method(init, encode, objective, features)


def _pairs(frames: int, steps: int) -> np.ndarray:
    """Returns every (context, step) whose frame lies in the window, int [r, 2]."""
    t, k = np.meshgrid(np.arange(frames), np.arange(1, steps + 1), indexing="ij")
    pairs = np.stack([t.ravel(), k.ravel()], 1)
    return pairs[pairs.sum(1) < frames]


def _draw(key: jax.Array, index: jax.Array, count: int, wanted: int) -> jax.Array:
    """Draws different places below `count` for every example, int32 [b, wanted]."""

    def places(example_key: jax.Array) -> jax.Array:
        return jax.random.permutation(example_key, jnp.arange(count, dtype=jnp.int32))[:wanted]

    return jax.vmap(places)(example_keys(key, index))


def _flat(x: jax.Array) -> jax.Array:
    """Joins the axes of contexts and steps of [b, t, k, ...]."""
    return x.reshape(len(x), -1, *x.shape[3:])
