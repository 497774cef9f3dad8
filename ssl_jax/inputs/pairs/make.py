"""Makes the `Input` of pairs from the config's sections."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ssl_jax.inputs import Arrays, Input, image
from ssl_jax.inputs.pairs import picture
from ssl_jax.inputs.pairs.tokenizer import PADDING

Tensor = Any  # tf.Tensor
IMAGE, TEXT = "image", "text"  # names of the parts
_CAPTION = 1  # separates the draw of the caption from other draws of the same seed


def record(channels: int) -> dict[str, tuple[Any, tuple[int | None, ...]]]:
    """Returns the spec of a pair's record.

    "image" uint8 [h, w, channels]; "tokens" int32 [captions, t], with -1 after the end token of a
    caption; "text" uint8 [bytes], the captions in UTF-8, one per line.
    """
    return {
        "image": (np.uint8, (None, None, channels)),
        "tokens": (np.int32, (None, None)),
        "text": (np.uint8, (None,)),
    }


def make_input(
    *,
    augment: Mapping[str, Any],
    data: Mapping[str, Any],
    evaluation: Mapping[str, Any],
    seed: int,
) -> Input:
    """Makes the input of pairs.

    A method sees the image's views and "tokens" int32 [text_length], with -1 after the end token.
    Each epoch draws one of the captions; evaluation takes the first one.

    Args:
      augment: fields of `config.augment`: those of images, and `text_length`.
      data: fields of `config.data`: `channels` and `vocabulary`.
      evaluation: fields of `config.eval`; only `crop` is read.
      seed: seed of the random decisions.

    Raises:
      Fault: as `inputs.image.make.make_input`.
    """
    import jax
    import jax.numpy as jnp

    length = augment["text_length"]
    images = image.make_input(augment=augment, data=data, evaluation=evaluation, seed=seed)
    spec = record(data.get("channels", 3))
    tokens = {"tokens": jax.ShapeDtypeStruct((length,), jnp.int32)}

    def host(record: Arrays, epoch: Tensor, index: Tensor) -> Arrays:
        captions = record["tokens"]
        chosen = captions[_draw(captions, seed, epoch, index)]
        return {**images.host(record, epoch, index), "tokens": fit(chosen, length)}

    def evaluate(record: Arrays) -> Arrays:
        return {IMAGE: images.evaluate(record), "tokens": fit(record["tokens"][0], length)}

    def to_model(arrays: Arrays) -> Any:
        return images.to_model(arrays[IMAGE])

    assert images.pair is not None
    assert images.light is not None
    pair, light = images.pair, images.light
    return images._replace(
        record=spec,
        host=host,
        shipped=images.shipped | tokens,
        seen=images.seen | tokens,
        symbols={"tokens": data["vocabulary"]},
        evaluate=evaluate,
        evaluated={IMAGE: images.evaluated, **tokens},
        to_model=to_model,
        parts={IMAGE: to_model, TEXT: lambda arrays: arrays["tokens"]},
        picture=lambda arrays: picture.image(arrays[IMAGE]),
        preview=picture.preview,
        # Two views of the image, and images for fine-tuning: the captions are left out.
        pair=lambda: pair()._replace(record=spec),
        light=lambda: light()._replace(record=spec),
    )


def _draw(captions: Tensor, seed: int, epoch: Tensor, index: Tensor) -> Tensor:
    """Returns the number of one caption, which depends only on (seed, epoch, index)."""
    import tensorflow as tf

    key = tf.constant([seed, _CAPTION], tf.int64)
    for number in (epoch, index):
        key = tf.random.experimental.stateless_fold_in(key, number, alg="philox")
    count = tf.shape(captions)[0]
    return tf.random.stateless_uniform([], key, 0, count, tf.int32, alg="philox")


def fit(tokens: Tensor, length: int) -> Tensor:
    """Cuts or pads the tokens of one caption to a length; a cut caption keeps its end token.

    Args:
      tokens: int32 [t], from the first token to the end token, then -1.
      length: tokens of the result.

    Returns:
      int32 [length].
    """
    import tensorflow as tf

    count = tf.reduce_sum(tf.cast(tokens >= 0, tf.int32))
    kept = tokens[: tf.minimum(count, length)]
    padded = tf.pad(kept, [[0, length - tf.shape(kept)[0]]], constant_values=PADDING)
    is_cut_end = (tf.range(length) == length - 1) & (count > length)
    return tf.ensure_shape(tf.where(is_cut_end, tokens[tf.maximum(count, 1) - 1], padded), [length])
