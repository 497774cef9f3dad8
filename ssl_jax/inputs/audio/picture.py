"""Draws recordings as pictures: log-mel spectrograms with time to the right and pitch upwards."""

import numpy as np

from ssl_jax.inputs.audio import mel

SIDE = 96  # pixels of a square picture
RANGE = 9.0  # nats below the loudest point that are black: 39 dB
# Colours from black over violet and orange to light yellow, of equal steps in lightness.
STOPS = np.array([[8, 6, 24], [74, 16, 108], [165, 44, 96], [237, 105, 37], [252, 255, 164]])


def picture(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """Draws one recording, whatever its length, across the whole picture.

    Args:
      waveform: float [t].
      sample_rate: samples per second.

    Returns:
      uint8 [SIDE, SIDE, 3].
    """
    values = mel.spectrogram(waveform, sample_rate)
    low = max(values.max() - RANGE, np.log(mel.FLOOR) + 1e-3)
    return _coloured(_resized(np.clip((values - low) / RANGE, 0, 1)))


def _resized(level: np.ndarray) -> np.ndarray:
    """Interpolates [frames, bands] linearly to [SIDE, SIDE], the highest band on top."""
    frames, bands = level.shape
    times = np.linspace(0, frames - 1, SIDE)
    pitches = np.linspace(bands - 1, 0, SIDE)
    columns = np.stack([np.interp(times, np.arange(frames), band) for band in level.T])
    return np.stack([np.interp(pitches, np.arange(bands), c) for c in columns.T], axis=1)


def _coloured(level: np.ndarray) -> np.ndarray:
    stops = np.linspace(0, 1, len(STOPS))
    channels = [np.interp(level, stops, STOPS[:, channel]) for channel in range(3)]
    return np.stack(channels, -1).round().astype(np.uint8)
