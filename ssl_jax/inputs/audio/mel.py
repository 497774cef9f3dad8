"""Log-mel spectrograms and MFCC, the features that speech recognition made by hand, in JAX."""

from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

SECONDS, HOP = 0.025, 0.01  # length and distance of frames
SHORTEST_FFT = 512  # shorter frames are padded, so that the narrowest band holds a frequency
BANDS, COEFFICIENTS = 40, 13
FLOOR = 1e-10  # of the power of a band, before the logarithm
DELTA = 2  # frames on each side of a difference
Tree = Any


class Frames(NamedTuple):
    """Features of the frames of a batch."""

    values: jax.Array  # float32 [b, frames, f]
    valid: jax.Array  # bool [b, frames]; False for frames that reach beyond the recording


def log_mel(x: Tree, sample_rate: int) -> Frames:
    """Computes the logarithm of the power in 40 mel bands.

    Frames of 25 ms every 10 ms are weighted by a Hann window. The bands are triangles on HTK's mel
    scale, from 0 Hz to half the sample rate. A recording shorter than a frame has one frame.

    A frame is padded with zeros to 512 samples before the Fourier transform: no band is empty at
    any rate from 1,000 Hz. Padding adds no detail. A frame resolves 40 Hz, and the lowest bands are
    33 Hz apart at 8 kHz and closer at lower rates, where neighbours tell much the same.

    Args:
      x: float [b, t], or {"waveform": float [b, t], "samples": int [b]}, where samples from
        `samples` on are padding.
      sample_rate: samples per second.
    """
    waveform, samples = split(x)
    length, hop = round(SECONDS * sample_rate), max(1, round(HOP * sample_rate))
    if waveform.shape[1] < length:
        waveform = jnp.pad(waveform, ((0, 0), (0, length - waveform.shape[1])))
    count = 1 + (waveform.shape[1] - length) // hop
    places = np.arange(count)[:, None] * hop + np.arange(length)[None]
    window = jnp.asarray(np.hanning(length + 1)[:-1], jnp.float32)
    frames = waveform.astype(jnp.float32)[:, places] * window[None, None]
    points = max(length, SHORTEST_FFT)
    spectrum = jnp.fft.rfft(frames, points)
    power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
    bands = jnp.einsum("btf,fm->btm", power, filters(points, sample_rate), precision="highest")
    whole = jnp.maximum(1 + (samples - length) // hop, 1)
    return Frames(jnp.log(jnp.maximum(bands, FLOOR)), jnp.arange(count)[None] < whole[:, None])


def mfcc(x: Tree, sample_rate: int) -> Frames:
    """Computes 13 mel-frequency cepstral coefficients with first and second differences: 39.

    The coefficients are the first of the orthonormal DCT-II of `log_mel`. Differences are the slope
    of a line through 5 frames; at the ends of a recording, the last frame is repeated.

    Args:
      x, sample_rate: as in `log_mel`.
    """
    mel = log_mel(x, sample_rate)
    cepstrum = jnp.einsum("btm,mc->btc", mel.values, cosines(), precision="highest")
    first = _slope(cepstrum, mel.valid)
    values = jnp.concatenate([cepstrum, first, _slope(first, mel.valid)], -1)
    return Frames(values, mel.valid)


def summary(frames: Frames) -> jax.Array:
    """Returns mean and standard deviation over the valid frames, float32 [b, 2 f]."""
    weight = frames.valid[..., None].astype(jnp.float32)
    count = weight.sum(1)
    mean = (frames.values * weight).sum(1) / count
    variance = (jnp.square(frames.values - mean[:, None]) * weight).sum(1) / count
    return jnp.concatenate([mean, jnp.sqrt(variance)], -1)


def split(x: Tree) -> tuple[jax.Array, jax.Array]:
    """Returns (waveform [b, t], samples int32 [b]); a plain array is valid to its end."""
    if isinstance(x, dict):
        return x["waveform"], x["samples"]
    return x, jnp.full(len(x), x.shape[1], jnp.int32)


@cache
def filters(points: int, sample_rate: int) -> np.ndarray:
    """Returns the weights of the mel bands for a Fourier transform of `points`.

    Returns:
      float32 [points // 2 + 1, BANDS].
    """
    frequency = np.fft.rfftfreq(points, 1 / sample_rate)[:, None]
    top = 2595 * np.log10(1 + sample_rate / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, BANDS + 2) / 2595) - 1)
    low, centre, high = (edges[None, i : i + BANDS] for i in range(3))
    rising, falling = (frequency - low) / (centre - low), (high - frequency) / (high - centre)
    return np.maximum(np.minimum(rising, falling), 0).astype(np.float32)


@cache
def cosines() -> np.ndarray:
    """Returns the first columns of the orthonormal DCT-II, float32 [BANDS, COEFFICIENTS]."""
    angle = np.pi / BANDS * (np.arange(BANDS)[:, None] + 0.5) * np.arange(COEFFICIENTS)[None]
    scale = np.full(COEFFICIENTS, np.sqrt(2 / BANDS))
    scale[0] = np.sqrt(1 / BANDS)
    return (np.cos(angle) * scale[None]).astype(np.float32)


def _slope(x: jax.Array, valid: jax.Array) -> jax.Array:
    """Returns the slope over 2 * DELTA + 1 frames of x [b, t, f], by least squares."""
    last = valid.sum(1, dtype=jnp.int32)[:, None] - 1
    place = jnp.arange(x.shape[1], dtype=jnp.int32)[None]

    def shifted(by: int) -> jax.Array:
        index = jnp.clip(place + by, 0, last)
        return jnp.take_along_axis(x, index[..., None], 1)

    steps = range(1, DELTA + 1)
    total = sum(step * (shifted(step) - shifted(-step)) for step in steps)
    return jnp.asarray(total) / (2 * sum(step * step for step in steps))


@partial(jax.jit, static_argnums=1)
def _one_log_mel(waveform: jax.Array, sample_rate: int) -> jax.Array:
    return log_mel(waveform[None], sample_rate).values[0]


def spectrogram(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """Returns the log-mel spectrogram of one recording [t], float32 [frames, BANDS]."""
    return np.asarray(_one_log_mel(np.asarray(waveform, np.float32), sample_rate))
