"""Random windows of a recording, and its evaluation array, by TensorFlow on the host.

TensorFlow is imported inside the functions, so that the package can be imported without it.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Tensor = Any  # tf.Tensor
DRAWS = 16  # uniform numbers per view; spare ones allow new operations without changing old draws
PLACE, GAIN, LOW, LOW_CUTOFF, HIGH, HIGH_CUTOFF, NOISE, SNR, MASK, MASK_PLACE = range(10)
PHILOX = 1  # a fixed generator: TensorFlow's default depends on the device
NOISE_BLOCK = 2**10  # first block of four numbers of the noise; the draws of views lie below it
ORDER = 4  # of the filters: 24 dB per octave


def make(
    augment: Mapping[str, Any], *, sample_rate: int, seed: int
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Builds the function (waveform float32 [t], epoch, index) -> views float32 [v, window].

    A view is a window at a uniformly random place. A recording that is shorter than the window lies
    at a random place in it, between zeros. The operations then run in this order:

    1. Filters, each with its probability: the spectrum is multiplied by the magnitude of a
       Butterworth filter of order 4, without a change of phase. The cut-off is drawn
       log-uniformly.
    2. Gain, uniform in dB.
    3. White noise with its probability, at a signal-to-noise ratio that is uniform in dB, relative
       to the mean power of the window. Silence stays silent.
    4. A span of uniformly random length, up to `mask` of the window, is set to zero.

    Args:
      augment: fields of `config.augment`.
      sample_rate: samples per second.
      seed: every draw is a pure function of (seed, epoch, index, view).
    """
    count, window = augment["views"], augment["window"]

    def views(waveform: Tensor, epoch: Tensor, index: Tensor) -> Tensor:
        import tensorflow as tf

        u = _uniform(seed, epoch, index, count)
        x = _windows(waveform, u[:, PLACE], count, window)
        if augment["lowpass"] or augment["highpass"]:
            x = _filtered(x, u, augment, sample_rate)
        if tuple(augment["gain"]) != (0, 0):
            x *= _amplitude(_between(u[:, GAIN], augment["gain"]))[:, None]
        if augment["noise"]:
            noise = _normal(seed, epoch, index, [count, window])
            applied = tf.cast(u[:, NOISE] < augment["noise"], tf.float32)
            level = applied * tf.sqrt(tf.reduce_mean(x**2, 1))
            x += (level * _amplitude(-_between(u[:, SNR], augment["noise_snr"])))[:, None] * noise
        if augment["mask"]:
            x = _masked(x, u, augment["mask"], window)
        return x

    return views


def evaluation_array(waveform: Tensor, length: int) -> dict[str, Tensor]:
    """Returns {"waveform": float32 [length], "samples": int32 []}: the start, padded with zeros."""
    import tensorflow as tf

    start = waveform[:length]
    samples = tf.shape(start)[0]
    padded = tf.pad(start, [[0, length - samples]])
    return {"waveform": tf.ensure_shape(padded, [length]), "samples": samples}


def _windows(waveform: Tensor, place: Tensor, count: int, window: int) -> Tensor:
    import tensorflow as tf

    padding = tf.maximum(window - tf.shape(waveform)[0], 0)
    padded = tf.pad(waveform, [[padding, padding]])
    starts = _floor(place, tf.shape(padded)[0] - window + 1)
    stacked = tf.stack([padded[starts[i] : starts[i] + window] for i in range(count)])
    return tf.ensure_shape(stacked, [count, window])


def _filtered(x: Tensor, u: Tensor, augment: Mapping[str, Any], sample_rate: int) -> Tensor:
    """Filters windows [v, t] in the frequency domain."""
    import tensorflow as tf

    window = x.shape[1]
    frequency = tf.constant(np.fft.rfftfreq(window, 1 / sample_rate).astype(np.float32))[None]

    def response(name: str, chance: int, cutoff: int, sign: int) -> Tensor:
        low, high = np.log(np.float32(augment[f"{name}_cutoff"]))
        hertz = tf.exp(low + (high - low) * u[:, cutoff])[:, None]
        ratio = tf.maximum(frequency, 1e-3) / hertz
        magnitude = tf.math.rsqrt(1 + ratio ** (sign * 2 * ORDER))
        return tf.where(u[:, chance, None] < augment[name], magnitude, tf.ones_like(magnitude))

    both = response("lowpass", LOW, LOW_CUTOFF, 1) * response("highpass", HIGH, HIGH_CUTOFF, -1)
    spectrum = tf.signal.rfft(x) * tf.cast(both, tf.complex64)
    return tf.signal.irfft(spectrum, [window])


def _masked(x: Tensor, u: Tensor, mask: float, window: int) -> Tensor:
    import tensorflow as tf

    length = _floor(u[:, MASK], int(mask * window) + 1)
    first = _floor(u[:, MASK_PLACE], window - length + 1)[:, None]
    position = tf.range(window)[None]
    inside = (position >= first) & (position < first + length[:, None])
    return tf.where(inside, 0.0, x)


def _floor(u: Tensor, count: Tensor) -> Tensor:
    """Returns whole numbers below `count`, int32, from uniform u in [0, 1)."""
    import tensorflow as tf

    # In float64, because float32 skips places of recordings with more than 2**23 samples.
    return tf.cast(tf.cast(u, tf.float64) * tf.cast(count, tf.float64), tf.int32)


def _between(u: Tensor, bounds: tuple[float, float]) -> Tensor:
    return bounds[0] + (bounds[1] - bounds[0]) * u


def _amplitude(decibels: Tensor) -> Tensor:
    import tensorflow as tf

    return tf.exp(decibels * np.float32(np.log(10) / 20))


def _uniform(seed: int, epoch: Tensor, index: Tensor, views: int) -> Tensor:
    """Returns uniform float32 [v, DRAWS] in [0, 1) that depend only on (seed, epoch, index, view).

    Philox is a bijection of its 128-bit counter, which here holds epoch, block and index. No two
    positions of a run therefore share a number.
    """
    import tensorflow as tf

    return tf.raw_ops.StatelessRandomUniformV2(
        shape=[views, DRAWS],
        key=tf.constant([seed % 2**64], tf.uint64),
        counter=_counter(epoch, index, 0),
        alg=PHILOX,
        dtype=tf.float32,
    )


def _normal(seed: int, epoch: Tensor, index: Tensor, shape: list[int]) -> Tensor:
    import tensorflow as tf

    return tf.raw_ops.StatelessRandomNormalV2(
        shape=shape,
        key=tf.constant([seed % 2**64], tf.uint64),
        counter=_counter(epoch, index, NOISE_BLOCK),
        alg=PHILOX,
        dtype=tf.float32,
    )


def _counter(epoch: Tensor, index: Tensor, block: int) -> Tensor:
    import tensorflow as tf

    first = tf.cast(epoch, tf.int64) * 2**20 + block
    return tf.cast(tf.stack([first, tf.cast(index, tf.int64)]), tf.uint64)
