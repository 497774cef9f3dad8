"""Decodes sound files to mono samples of one rate, with soundfile and soxr."""

import io
from typing import Any

import numpy as np

from ssl_jax.errors import MISSING_INPUT, Fault

EXTENSIONS = frozenset({".wav", ".flac"})
RATES = (1_000, 768_000)  # samples per second; resampling others would cost too much memory
LARGEST = 1e6  # magnitude of a sample; resampling turns numbers near float32's limit into NaN
MAX_VALUES = 2**29  # of all channels, or of the result: 2 GiB
_BLOCK = 2**18  # values that are read at once
_UNKNOWN = 2**62  # libsndfile's number of frames of a FLAC file without a length is larger


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
      ValueError: the file is not readable, shorter than its header says, or too long; it holds no
        samples, or samples that are not finite or larger than LARGEST; its rate is outside RATES.
        The text is the reason.
      Fault: soundfile or soxr is not installed.
    """
    soundfile, soxr = _libraries()
    if not data:
        raise ValueError("the file is empty")
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            rate, mono = file.samplerate, _read(file, sample_rate)
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise ValueError(f"not a readable WAV or FLAC file: {_reason(error)}") from error
    if rate != sample_rate:
        # A very short file can lose its only sample.
        resampled = soxr.resample(mono, rate, sample_rate)
        mono = resampled if len(resampled) else mono[:1]
    return np.ascontiguousarray(mono, np.float32)


def _read(file: Any, sample_rate: int) -> np.ndarray:
    """Reads an opened file in blocks, because its header may claim any length, or none.

    Args:
      file: soundfile.SoundFile.
      sample_rate: rate to which the samples will be resampled.

    Returns:
      float32 [t], the mean over channels.
    """
    if not RATES[0] <= file.samplerate <= RATES[1]:
        message = f"the file has {file.samplerate:,} samples per second, and only {RATES[0]:,} to"
        raise ValueError(f"{message} {RATES[1]:,} are read")
    # soundfile seeks to the position after each block, which fails at the end of a FLAC file whose
    # header claims more samples, or none. Blocks are read one after the other anyway.
    file.seekable = lambda: False
    block = np.empty((max(1, _BLOCK // file.channels), file.channels), np.float32)
    longest = MAX_VALUES // max(file.channels, -(-sample_rate // file.samplerate))
    parts, count = [], 0
    while len(samples := file.read(out=block)):
        count += len(samples)
        if count > longest:
            raise ValueError(f"the file is longer than {longest:,} samples")
        if not np.isfinite(samples).all():
            raise ValueError("the file holds samples that are not finite numbers")
        if (np.abs(samples) >= LARGEST).any():
            raise ValueError(f"the file holds samples of {LARGEST:g} or more; full scale is 1")
        parts.append(samples.mean(1, dtype=np.float32))
    if not count:
        raise ValueError("the file holds no samples")
    if count < file.frames < _UNKNOWN:
        message = f"the header claims {file.frames:,} samples, but the file holds"
        raise ValueError(f"{message} {count:,}")
    return np.concatenate(parts)


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
