"""Random windows of sound against NumPy, and their independence of everything but their numbers."""

import functools

import numpy as np
import pytest

from ssl_jax.inputs import audio
from ssl_jax.inputs.audio import views
from ssl_jax.inputs.audio.make import make_input

RATE = 8000
DATA = {"sample_rate": RATE, "group": "speaker"}
WAVEFORM = np.random.default_rng(1).normal(size=3000).astype(np.float32)


def make(*, data=DATA, seed=3, **augment):
    fields = audio.default_fields() | {"window": 800, "max_seconds": 0.25} | augment
    assert not audio.problems(fields)
    return make_input(augment=fields, data=data, evaluation={}, seed=seed)


@functools.cache
def graph(fields):
    """Compiles the views as the pipeline does: in a graph, where lengths are unknown."""
    import tensorflow as tf

    host = make(**dict(fields)).host
    spec = [tf.TensorSpec([None], tf.float32), *[tf.TensorSpec([], tf.int64)] * 2]
    return tf.function(lambda x, *place: host({"waveform": x, "group": 7}, *place), spec)


def view(waveform=WAVEFORM, epoch=0, index=0, **fields):
    arrays = graph(tuple(fields.items()))(waveform, np.int64(epoch), np.int64(index))
    assert int(arrays["group"]) == 7
    return arrays["views"].numpy()


def test_a_window_is_a_part_of_the_recording_and_views_differ():
    found = view(views=3)
    starts = [np.flatnonzero(one[0] == WAVEFORM)[0] for one in found]
    assert len(set(starts)) == 3
    for start, one in zip(starts, found, strict=True):
        np.testing.assert_array_equal(one, WAVEFORM[start : start + 800])


def test_windows_reach_both_ends():
    places = set()
    for index in range(60):
        places.add(np.flatnonzero(WAVEFORM[:804] == view(WAVEFORM[:804], index=index)[0, 0])[0])
    assert places == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("length", [1, 799])
def test_a_short_recording_lies_between_zeros(length):
    (one,) = view(WAVEFORM[:length])
    start = np.flatnonzero(one)[0]
    expected = np.zeros(800, np.float32)
    expected[start : start + length] = WAVEFORM[:length]
    np.testing.assert_array_equal(one, expected)


def test_views_depend_on_seed_epoch_and_index_alone():
    every = {"gain": (-6, 6), "lowpass": 0.5, "highpass": 0.5, "noise": 0.5, "mask": 0.3}
    first = view(views=2, **every)
    np.testing.assert_array_equal(view(views=2, **every), first)
    for other in ({"seed": 4}, {"epoch": 1}, {"index": 1}):
        assert not np.array_equal(view(views=2, **every, **other), first)


def test_gain_is_a_factor_in_decibels():
    plain = view()
    np.testing.assert_allclose(view(gain=(-20.0, -20.0)), plain * 0.1, rtol=1e-5)
    ratios = [view(index=i, gain=(-6, 6))[0, 0] / view(index=i)[0, 0] for i in range(40)]
    decibels = 20 * np.log10(ratios)
    assert -6 <= decibels.min() < -3 < 3 < decibels.max() <= 6


def test_noise_has_its_ratio_and_silence_stays_silent():
    plain, noisy = view(window=2400), view(window=2400, noise=1.0, noise_snr=(10.0, 10.0))
    added = noisy - plain
    ratio = 10 * np.log10(np.square(plain).mean() / np.square(added).mean())
    assert ratio == pytest.approx(10, abs=0.3)
    assert abs(np.corrcoef(plain[0], added[0])[0, 1]) < 0.1
    assert not view(np.zeros(3000, np.float32), noise=1.0, gain=(3, 3), lowpass=1.0).any()
    changed = [not np.array_equal(view(index=i, noise=0.5), view(index=i)) for i in range(40)]
    assert 8 < sum(changed) < 32


@pytest.mark.parametrize(("name", "sign"), [("lowpass", 1), ("highpass", -1)])
def test_filters_are_butterworth_without_phase(name, sign):
    plain = view()[0]
    got = view(**{name: 1.0, f"{name}_cutoff": (1000.0, 1000.0)})[0]
    frequency = np.maximum(np.fft.rfftfreq(800, 1 / RATE), 1e-3)
    response = 1 / np.sqrt(1 + (frequency / 1000) ** (8.0 * sign))
    want = np.fft.irfft(np.fft.rfft(plain.astype(np.float64)) * response)
    np.testing.assert_allclose(got, want, atol=1e-4)


def test_mask_sets_one_span_to_zero():
    lengths = []
    for index in range(40):
        (one,) = view(index=index, mask=0.25)
        zero = np.flatnonzero(one == 0)
        lengths.append(len(zero))
        if len(zero):
            assert zero[-1] - zero[0] + 1 == len(zero)
    assert max(lengths) <= 200
    assert max(lengths) > 120
    assert min(lengths) < 60


def test_the_evaluation_array_has_the_start_and_its_length():
    import tensorflow as tf

    one = make()
    for length in (1, 1500, 2000, 2500):
        arrays = one.evaluate({"waveform": tf.constant(WAVEFORM[:length])})
        assert int(arrays["samples"]) == min(length, 2000)
        want = np.zeros(2000, np.float32)
        want[:length] = WAVEFORM[: min(length, 2000)]
        np.testing.assert_array_equal(arrays["waveform"], want)


def test_a_light_view_has_only_its_place():
    every = {"gain": (-6, 6), "lowpass": 1.0, "noise": 1.0, "mask": 0.3, "views": 2}
    light = audio.light_fields(audio.default_fields() | every | {"window": 640})
    assert light == audio.default_fields() | {"window": 640}
    assert make(**every).light().seen["views"].shape == (1, 800)
    assert make(**every).pair().seen["views"].shape == (2, 800)
    assert "group" not in make(data=DATA | {"group": ""}).seen


def test_noise_and_draws_use_different_numbers_of_the_generator():
    assert views.NOISE_BLOCK * 4 > 100 * views.DRAWS


@pytest.mark.parametrize(
    ("field", "value"),
    [("window", 0), ("gain", (3.0, -3.0)), ("noise", 1.5), ("mask", 1.0), ("max_seconds", 0.0)],
)
def test_bad_fields_are_named(field, value):
    (sentence,) = audio.problems(audio.default_fields() | {field: value})
    assert sentence.startswith(f"augment.{field}=")
