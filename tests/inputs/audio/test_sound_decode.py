"""Sound files decode to the numbers that the standard library reads, or to a clear message."""

import io
import wave

import numpy as np
import pytest
import sounds

from ssl_jax.inputs.audio.decode import decode

RNG = np.random.default_rng(0)


def read(path):
    """Returns samples [t, channels] in [-1, 1) by `wave`, for 2 and 3 bytes per sample."""
    with wave.open(str(path)) as file:
        width, raw = file.getsampwidth(), file.readframes(file.getnframes())
        bytes_ = np.frombuffer(raw, np.uint8).reshape(-1, width)
        padded = np.zeros((len(bytes_), 4), np.uint8)
        padded[:, 4 - width :] = bytes_  # the high bytes, so that the sign is right
        values = padded.view("<i4")[:, 0].reshape(-1, file.getnchannels())
    return values / 2.0**31


@pytest.mark.parametrize(("width", "channels"), [(2, 1), (2, 2), (3, 1), (3, 2)])
def test_wav_equals_the_standard_library(tmp_path, width, channels):
    bits = 8 * width - 1
    samples = RNG.integers(-(2**bits), 2**bits, (500, channels))
    sounds.write_wav(tmp_path / "a.wav", samples, width=width)
    got = decode((tmp_path / "a.wav").read_bytes(), 8000)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, read(tmp_path / "a.wav").mean(1), rtol=0, atol=1e-7)


def test_flac_equals_its_samples(tmp_path):
    import soundfile

    samples = RNG.integers(-(2**15), 2**15, 700).astype(np.int16)
    soundfile.write(tmp_path / "a.flac", samples, 16000)
    got = decode((tmp_path / "a.flac").read_bytes(), 16000)
    np.testing.assert_array_equal(got, samples / np.float32(2**15))


def test_48_khz_is_resampled_to_the_same_tone(tmp_path):
    sounds.write_wav(tmp_path / "a.wav", sounds.tone(440, 0.5, 48000), rate=48000)
    got = decode((tmp_path / "a.wav").read_bytes(), 8000)
    assert abs(len(got) - 4000) <= 1
    want = 8000 / 2**15 * np.sin(2 * np.pi * 440 * np.arange(4000) / 8000)
    np.testing.assert_allclose(got[200:3800], want[200:3800], atol=0.01)


def test_one_sample_and_silence_are_sound(tmp_path):
    sounds.write_wav(tmp_path / "a.wav", [16384])
    np.testing.assert_array_equal(decode((tmp_path / "a.wav").read_bytes(), 8000), [0.5])
    assert len(decode((tmp_path / "a.wav").read_bytes(), 1000)) >= 1
    sounds.write_wav(tmp_path / "b.wav", np.zeros(300))
    np.testing.assert_array_equal(decode((tmp_path / "b.wav").read_bytes(), 8000), np.zeros(300))


def _not_finite():
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, np.array([0.0, np.nan], np.float32), 8000, "FLOAT", format="WAV")
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (lambda wav: b"", "the file is empty"),
        (lambda wav: b"this is no sound" * 20, "not a readable WAV or FLAC file: Format not"),
        (lambda wav: wav[:20], "not a readable WAV or FLAC file"),
        (lambda wav: wav[:44], "holds no samples"),
        (lambda wav: _not_finite(), "samples that are not finite numbers"),
    ],
)
def test_bad_files_name_the_reason(tmp_path, data, reason):
    sounds.write_wav(tmp_path / "a.wav", np.arange(100))
    with pytest.raises(ValueError, match=reason):
        decode(data((tmp_path / "a.wav").read_bytes()), 8000)
