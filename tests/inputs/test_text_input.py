"""The text modality: subsampling and windows against counts, and pure functions of their keys."""

import numpy as np
import pytest
from scipy import stats

from ssl_jax.inputs import text
from ssl_jax.inputs.text.make import BAG, bag_of_words

LENGTH = 64


def make(seed=0, **augment):
    fields = text.default_fields() | augment
    return text.make_input(augment=fields, data={"chunk": LENGTH}, evaluation={}, seed=seed)


def record(tokens, frequency):
    tokens = np.asarray(tokens, np.int32)
    return {"tokens": tokens, "frequency": np.full(len(tokens), frequency, np.float32)}


def drawn(example_input, one, count, epoch=0):
    import tensorflow as tf

    function = tf.function(example_input.host, reduce_retracing=True)
    outputs = [
        function(
            {k: tf.constant(v) for k, v in one.items()},
            tf.constant(epoch, tf.int64),
            tf.constant(index, tf.int64),
        )
        for index in range(count)
    ]
    return {name: np.stack([o[name].numpy() for o in outputs]) for name in outputs[0]}


@pytest.mark.parametrize("frequency", [0.03, 0.004, 0.0005])
def test_subsampling_keeps_the_share_of_word2vec_c(frequency):
    one = record(np.arange(LENGTH), frequency)
    kept = (drawn(make(subsample=1e-3), one, 100)["tokens"] >= 0).sum()
    total, threshold = 100 * LENGTH, 1e-3
    # word2vec.c: (sqrt(cn / (sample * train_words)) + 1) * (sample * train_words) / cn
    share = min((np.sqrt(frequency / threshold) + 1) * threshold / frequency, 1)
    if share == 1:
        assert kept == total
    else:
        assert stats.binomtest(int(kept), total, share).pvalue > 1e-4


def test_windows_are_uniform():
    windows = drawn(make(window=5), record([0], 0.1), 60)["window"].reshape(-1)
    counts = np.bincount(windows, minlength=6)[1:]
    assert len(counts) == 5
    assert stats.chisquare(counts).pvalue > 1e-4


def test_words_that_are_left_stand_together():
    arrays = drawn(make(subsample=1e-3), record(np.arange(40), 0.02), 3)
    for row in arrays["tokens"]:
        kept = row[row >= 0]
        assert 0 < len(kept) < 40
        assert (row[len(kept) :] == -1).all()
        assert (np.diff(kept) > 0).all()


def test_decisions_depend_on_seed_epoch_and_index_only():
    one = record(np.arange(LENGTH), 0.01)
    first, again = (drawn(make(seed=3), one, 4, epoch=2) for _ in range(2))
    for name in first:
        np.testing.assert_array_equal(first[name], again[name])
        assert len(np.unique(first[name], axis=0)) == 4  # another index draws anew
        for other in (drawn(make(seed=4), one, 4, epoch=2), drawn(make(seed=3), one, 4, epoch=3)):
            assert (other[name] != first[name]).any()


def test_no_subsampling_keeps_every_word():
    tokens = drawn(make(subsample=0), record(np.arange(LENGTH), 0.5), 2)["tokens"]
    np.testing.assert_array_equal(tokens, [np.arange(LENGTH)] * 2)


def test_bag_of_words_counts_the_frequent_words():
    tokens = np.array([[0, 2, 2, BAG, BAG + 5, -1], [-1] * 6], np.int32)
    bags = np.asarray(bag_of_words(tokens))
    assert bags.shape == (2, BAG)
    assert bags[0, [0, 1, 2]].tolist() == [1, 0, 2]
    assert bags.sum() == 3


def test_bad_fields_are_named():
    problems = text.problems(text.default_fields() | {"window": 0})
    assert len(problems) == 1
    assert "augment.window=0" in problems[0]
