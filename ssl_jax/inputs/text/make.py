"""Makes the `Input` of text from the config's sections."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ssl_jax.inputs import Arrays, Input

BAG = 1000  # most frequent words that the raw baseline counts
KEEP, WINDOW = 0, 1  # numbers of the two random decisions about a word


def make_input(
    *,
    augment: Mapping[str, Any],
    data: Mapping[str, Any],
    evaluation: Mapping[str, Any],
    seed: int,
) -> Input:
    """Makes the input of text.

    The host drops frequent words at random and draws the window of every word that is left, as
    `word2vec.c`. Words are numbers in the vocabulary of the source; -1 fills passages up.

    Args:
      augment: fields of `config.augment`.
      data: fields of `config.data`; only `chunk` is read.
      evaluation: fields of `config.eval`; none is read.
      seed: seed of the random decisions.
    """
    import jax
    import jax.numpy as jnp

    del evaluation
    length = data["chunk"]

    def host(record: Arrays, epoch: Any, index: Any) -> Arrays:
        import tensorflow as tf

        kept = _subsample(record, augment["subsample"], _key(seed, KEEP, epoch, index))
        window = tf.random.stateless_uniform(
            [length], _key(seed, WINDOW, epoch, index), 1, augment["window"] + 1, tf.int32
        )
        return {"tokens": _filled(kept, length), "window": window}

    words = jax.ShapeDtypeStruct((length,), jnp.int32)
    seen = {"tokens": words, "window": words}
    return Input(
        record={"tokens": (np.int32, (None,)), "frequency": (np.float32, (None,))},
        host=host,
        device=lambda batch: batch,
        shipped=seen,
        seen=seen,
        symbols={"window": augment["window"] + 1},
        evaluate=lambda record: _filled(record["tokens"], length),
        evaluated=words,
        to_model=lambda tokens: tokens,
        baselines={f"counts of {BAG:,} words": bag_of_words},
        noun="passage",
        description=f"all words of the vocabulary in a passage of at most {length}",
    )


def keep_probability(frequency: Any, threshold: float, sqrt: Any) -> Any:
    """Returns the probability of keeping words; more than 1 keeps a word always.

    Args:
      frequency: share of all words, per word.
      threshold: the words of a rarer word are always kept.
      sqrt: square root of arrays like `frequency`.

    Source: `word2vec.c`, `(sqrt(cn / (sample * N)) + 1) * (sample * N) / cn`. The formula of the
    paper (arXiv 1310.4546, section 2.3) has no second term.
    """
    ratio = threshold / frequency
    return sqrt(ratio) + ratio


def bag_of_words(tokens: Any) -> Any:
    """Returns float32 [n, 1000], how often each of the most frequent words occurs in int32 [n, t].

    The baseline of document vectors. The numbers of words are their ranks.
    """
    import jax
    import jax.numpy as jnp

    rows = jnp.zeros((len(tokens), BAG + 1), jnp.float32)
    column = jnp.where((tokens >= 0) & (tokens < BAG), tokens, BAG)
    return jax.vmap(lambda row, words: row.at[words].add(1.0))(rows, column)[:, :BAG]


def typical_facts(data: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Returns facts of a text with the largest vocabulary that `data` allows.

    Counts follow Zipf's law. Plans use these facts, because they do not read the text.
    """
    size = data["max_words"]
    counts = np.maximum(1e9 / np.arange(1, size + 1), data["min_count"]).astype(np.int64)
    return {"words": np.arange(size).astype(str), "counts": counts}


def _key(seed: int, decision: int, epoch: Any, index: Any) -> Any:
    """Returns the seed of one decision about one passage in one epoch, int64 [2]."""
    import tensorflow as tf

    # The run's seed has 32 bits, so the sum does not mix seeds with decisions.
    key = tf.stack([tf.constant(2 * seed + decision, tf.int64), tf.constant(0, tf.int64)])
    for part in (epoch, index):
        key = tf.random.experimental.stateless_fold_in(key, tf.cast(part, tf.int64))
    return key


def _subsample(record: Arrays, threshold: float, key: Any) -> Any:
    import tensorflow as tf

    tokens = record["tokens"]
    if not threshold:
        return tokens
    probability = keep_probability(record["frequency"], threshold, tf.sqrt)
    drawn = tf.random.stateless_uniform(tf.shape(tokens), key)
    return tf.boolean_mask(tokens, drawn < probability)


def _filled(tokens: Any, length: int) -> Any:
    """Returns int32 [length], filled up with -1."""
    import tensorflow as tf

    missing = length - tf.shape(tokens)[0]
    return tf.ensure_shape(tf.pad(tokens, [[0, missing]], constant_values=-1), [length])
