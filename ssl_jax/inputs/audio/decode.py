"""Decodes sound files to mono samples of one rate, with soundfile and soxr."""

import io
from typing import Any

import numpy as np

from ssl_jax.errors import MISSING_INPUT, Fault

EXTENSIONS = frozenset({".wav", ".flac"})


def decode(data: bytes, sample_rate: int) -> np.ndarray:
    """Decodes the content of a WAV or FLAC file.

    Integers of b bits are divided by 2^(b - 1). Channels are averaged. Another rate is resampled by
    soxr's quality "HQ".

    Args:
      data: content of the file.
      sample_rate: samples per second of the result.

    Returns:
      float32 [t], about in [-1, 1]; t is at least 1.

    Raises:
      ValueError: the file is not readable, holds no samples, or samples that are not finite; the
        text is the reason.
      Fault: soundfile or soxr is not installed.
    """
    soundfile, soxr = _libraries()
    if not data:
        raise ValueError("the file is empty")
    try:
        samples, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise ValueError(f"not a readable WAV or FLAC file: {_reason(error)}") from error
    if not len(samples):
        raise ValueError("the file holds no samples")
    mono = samples[:, 0] if samples.shape[1] == 1 else samples.mean(1, dtype=np.float32)
    if not np.isfinite(mono).all():
        raise ValueError("the file holds samples that are not finite numbers")
    if rate != sample_rate:
        # A very short file can lose its only sample.
        resampled = soxr.resample(mono, rate, sample_rate)
        mono = resampled if len(resampled) else mono[:1]
    return np.ascontiguousarray(mono, np.float32)


def _reason(error: Exception) -> str:
    text = getattr(error, "error_string", "") or str(error)
    return text.rstrip(".").removeprefix("Error opening <_io.BytesIO object>: ")


def _libraries() -> tuple[Any, Any]:
    try:
        import soundfile
        import soxr
    except (ImportError, OSError) as error:  # soundfile loads the C library libsndfile
        raise Fault(
            f"sound files need the packages soundfile and soxr: {error}. Install them by "
            "`pip install soundfile soxr`",
            MISSING_INPUT,
        ) from error
    return soundfile, soxr
