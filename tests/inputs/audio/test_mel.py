"""Log-mel and MFCC against a computation in float64 with scipy's DCT, and the pictures."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.fft
import sounds

from ssl_jax.inputs.audio import mel
from ssl_jax.inputs.audio.picture import SIDE, picture

RATE = 8000
X = sounds.tone(700, 0.3) / 2.0**15


def to_mel(hertz):
    return 2595 * np.log10(1 + hertz / 700)


def oracle(x):
    """Log-mel frame by frame and band by band, from the definitions, with a direct DFT.

    Frames of 200 samples; the DFT is of 512 points, with zeros after the frame.
    """
    n, points = 200, 512
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / n)
    edges = [700 * (10 ** (m / 2595) - 1) for m in np.linspace(0, to_mel(RATE / 2), 42)]
    dft = np.exp(-2j * np.pi * np.outer(np.arange(points // 2 + 1), np.arange(n)) / points)
    rows = []
    for start in range(0, len(x) - n + 1, 80):
        power = np.abs(dft @ (x[start : start + n] * window)) ** 2
        row = []
        for low, centre, high in zip(edges, edges[1:], edges[2:], strict=False):
            total = 0.0
            for k, p in enumerate(power):
                hertz = k * RATE / points
                if low < hertz <= centre:
                    total += p * (hertz - low) / (centre - low)
                elif centre < hertz < high:
                    total += p * (high - hertz) / (high - centre)
            row.append(np.log(max(total, 1e-10)))
        rows.append(row)
    return np.array(rows)


def slope(x):
    padded = np.pad(x, ((2, 2), (0, 0)), "edge")
    times = np.arange(-2, 3)
    return np.array([times @ padded[i : i + 5] / (times @ times) for i in range(len(x))])


def test_log_mel_and_mfcc_equal_their_definitions():
    want, got = oracle(X), mel.log_mel(jnp.asarray(X, jnp.float32)[None], RATE)
    assert got.valid.all()
    loud = want > -8  # float32 leaves few digits of a band without power
    assert loud.mean() > 0.5
    np.testing.assert_allclose(got.values[0][loud], want[loud], atol=2e-3)
    cepstrum = scipy.fft.dct(np.asarray(got.values[0], np.float64), norm="ortho")[:, :13]
    want = np.concatenate([cepstrum, slope(cepstrum), slope(slope(cepstrum))], 1)
    np.testing.assert_allclose(
        mel.mfcc(jnp.asarray(X, jnp.float32)[None], RATE).values[0], want, atol=1e-4
    )


@pytest.mark.parametrize("rate", [1000, 1500, 4000, 8000, 16000, 22050, 44100, 48000, 768000])
def test_no_band_is_empty_at_any_rate(rate):
    noise = np.random.default_rng(0).normal(size=(1, rate // 5)).astype(np.float32)
    values = mel.log_mel(jnp.asarray(noise), rate).values
    assert values.min() > np.log(mel.FLOOR) + 1
    assert np.isfinite(mel.mfcc(jnp.asarray(noise), rate).values).all()


@pytest.mark.parametrize("function", [mel.log_mel, mel.mfcc])
def test_padding_changes_no_feature(function):
    whole = function(jnp.asarray(X, jnp.float32)[None], RATE)
    padded = np.pad(X, (0, 1000)).astype(np.float32)
    x = {"waveform": jnp.asarray([padded, padded]), "samples": jnp.asarray([len(X), 5])}
    frames = function(x, RATE)
    assert frames.valid.sum(1).tolist() == [len(whole.values[0]), 1]
    np.testing.assert_allclose(frames.values[0][frames.valid[0]], whole.values[0], atol=1e-5)
    pooled, own = mel.summary(frames)[0], mel.summary(whole)[0]
    np.testing.assert_allclose(pooled, own, atol=1e-4)
    values = np.asarray(whole.values[0], np.float64)
    np.testing.assert_allclose(own, np.concatenate([values.mean(0), values.std(0)]), atol=1e-3)


def test_a_picture_shows_pitch_upwards_and_time_to_the_right():
    low, high = (picture(sounds.tone(hertz) / 2.0**15, RATE) for hertz in (300, 2500))
    brightest = [one.sum(-1).argmax(0)[SIDE // 2] for one in (low, high)]
    assert brightest[1] < brightest[0] - 20  # rows are counted from the top
    both = np.concatenate([sounds.tone(300), np.zeros(1600)]) / 2.0**15
    brightness = picture(both, RATE).sum((0, 2))
    assert brightness[: SIDE // 3].min() > brightness[-SIDE // 3 :].max()
    for waveform in (np.zeros(400), np.zeros(1), np.ones(1)):
        assert picture(waveform, RATE).shape == (SIDE, SIDE, 3)
