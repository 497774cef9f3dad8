"""Draws recordings as pictures: log-mel spectrograms with time to the right and pitch upwards."""

import numpy as np

from ssl_jax.inputs.audio import mel

SIDE = 96  # pixels of a square picture
RANGE = 9.0  # nats below the loudest point that are black: 39 dB
# Colours from black over violet and orange to light yellow, of equal steps in lightness.
STOPS = np.array([[8, 6, 24], [74, 16, 108], [165, 44, 96], [237, 105, 37], [252, 255, 164]])
EMPTY = np.array([224, 224, 228], np.uint8)  # padding after the end of a recording


def picture(waveform: np.ndarray, sample_rate: int, *, length: int = 0) -> np.ndarray:
    """Draws one recording.

    Args:
      waveform: float [t].
      sample_rate: samples per second.
      length: samples that the width of the picture stands for; the rest of it is light grey. 0 or
        less than t: the recording fills the picture.

    Returns:
      uint8 [SIDE, SIDE, 3].
    """
    width = round(SIDE * min(1.0, len(waveform) / length)) if length else SIDE
    width = max(1, width)
    values = mel.spectrogram(waveform, sample_rate)
    low = max(values.max() - RANGE, np.log(mel.FLOOR) + 1e-3)
    level = np.clip((values - low) / RANGE, 0, 1)
    drawn = np.full((SIDE, SIDE, 3), EMPTY, np.uint8)
    drawn[:, :width] = _coloured(_resized(level, width))
    return drawn


def _resized(level: np.ndarray, width: int) -> np.ndarray:
    """Interpolates [frames, bands] linearly to [SIDE, width], the highest band on top."""
    frames, bands = level.shape
    times = np.linspace(0, frames - 1, width)
    pitches = np.linspace(bands - 1, 0, SIDE)
    columns = np.stack([np.interp(times, np.arange(frames), band) for band in level.T])
    return np.stack([np.interp(pitches, np.arange(bands), c) for c in columns.T], axis=1)


def _coloured(level: np.ndarray) -> np.ndarray:
    stops = np.linspace(0, 1, len(STOPS))
    channels = [np.interp(level, stops, STOPS[:, channel]) for channel in range(3)]
    return np.stack(channels, -1).round().astype(np.uint8)
