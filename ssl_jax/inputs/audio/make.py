"""Makes the `Input` of sound from the config's sections."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssl_jax.inputs import Arrays, Input, Tree
from ssl_jax.inputs.audio import mel, views
from ssl_jax.inputs.audio.fields import light_fields
from ssl_jax.inputs.audio.picture import picture

HAND_MADE = {"MFCC": mel.mfcc, "log-mel": mel.log_mel}


def make_input(
    *,
    augment: Mapping[str, Any],
    data: Mapping[str, Any],
    evaluation: Mapping[str, Any],
    seed: int,
) -> Input:
    """Makes the input of sound.

    A record is "waveform" float32 [t] and "group" int32 []. The method sees "views" [v, window]
    and, if `data.group` names one, "group". The evaluation array is {"waveform": float32 [T],
    "samples": int32 []}: the start of the recording, and its length without padding.

    Args:
      augment: fields of `config.augment`.
      data: fields of `config.data`; `sample_rate` and `group` are read.
      evaluation: fields of `config.eval`; none is read.
      seed: seed of the random decisions.
    """
    rate, with_group = data["sample_rate"], bool(data["group"])
    random_views = views.make(augment, sample_rate=rate, seed=seed)
    length = max(1, round(augment["max_seconds"] * rate))

    def host(record: Arrays, epoch: Any, index: Any) -> Arrays:
        arrays = {"views": random_views(record["waveform"], epoch, index)}
        return arrays | ({"group": record["group"]} if with_group else {})

    def variant(changed: Mapping[str, Any]) -> Input:
        return make_input(augment=changed, data=data, evaluation=evaluation, seed=seed)

    def draw(arrays: Arrays) -> np.ndarray:
        samples = max(1, int(arrays["samples"]))
        return picture(np.asarray(arrays["waveform"])[:samples], rate)

    def preview(record: Arrays, seen: Arrays) -> Arrays:
        drawn = np.stack([picture(view, rate) for view in np.asarray(seen["views"])])
        return {"original": picture(np.asarray(record["waveform"]), rate), "views": drawn}

    seen = {"views": jax.ShapeDtypeStruct((augment["views"], augment["window"]), jnp.float32)}
    if with_group:
        seen["group"] = jax.ShapeDtypeStruct((), jnp.int32)
    return Input(
        record={"waveform": (np.float32, (None,)), "group": (np.int32, ())},
        host=host,
        device=lambda batch: batch,
        shipped=seen,
        seen=seen,
        evaluate=lambda record: views.evaluation_array(record["waveform"], length),
        evaluated={
            "waveform": jax.ShapeDtypeStruct((length,), jnp.float32),
            "samples": jax.ShapeDtypeStruct((), jnp.int32),
        },
        to_model=lambda arrays: arrays,
        picture=draw,
        preview=preview,
        pair=lambda: variant({**augment, "views": 2}),
        light=lambda: variant(light_fields(augment))._replace(
            description=f"windows of {augment['window']} samples at random places"
        ),
        baselines={name: _pooled(function, rate) for name, function in HAND_MADE.items()},
        frame_baselines={
            name: partial(function, sample_rate=rate) for name, function in HAND_MADE.items()
        },
        noun="recording",
        description=f"the first {augment['max_seconds']:g} s, at {rate} Hz",
    )


def _pooled(function: Callable[..., mel.Frames], rate: int) -> Callable[[Tree], jax.Array]:
    return lambda x: mel.summary(function(x, rate))
