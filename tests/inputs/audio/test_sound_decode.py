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


def _floats(value, rate=16000):
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, np.full(99, value, np.float32), rate, "FLOAT", format="WAV")
    return file.getvalue()


def _flac(total):
    """Returns the samples and a FLAC file of 300 of them, whose header claims another number."""
    import soundfile

    samples, file = RNG.integers(-(2**15), 2**15, 300).astype(np.int16), io.BytesIO()
    soundfile.write(file, samples, 8000, format="FLAC")
    data = bytearray(file.getvalue())
    number = int.from_bytes(data[21:26], "big")  # STREAMINFO: 4 other bits, then 36 of the total
    assert number % 2**36 == 300
    data[21:26] = (number - 300 + total).to_bytes(5, "big")
    return samples, bytes(data)


def test_flac_of_unknown_length_is_read_to_its_end():
    samples, data = _flac(0)
    np.testing.assert_array_equal(decode(data, 8000), samples / np.float32(2**15))


def test_long_files_are_read_in_blocks_up_to_a_limit(tmp_path, monkeypatch):
    samples = RNG.integers(-99, 99, (70, 2))
    sounds.write_wav(tmp_path / "a.wav", samples)
    data = (tmp_path / "a.wav").read_bytes()
    whole = decode(data, 8000)
    monkeypatch.setattr("ssl_jax.inputs.audio.decode._BLOCK", 32)
    np.testing.assert_array_equal(decode(data, 8000), whole)
    monkeypatch.setattr("ssl_jax.inputs.audio.decode.MAX_VALUES", 139)
    with pytest.raises(ValueError, match="longer than 69 samples"):
        decode(data, 8000)
    monkeypatch.setattr("ssl_jax.inputs.audio.decode.MAX_VALUES", 240)
    with pytest.raises(ValueError, match="longer than 60 samples"):
        decode(data, 32000)  # the result would be four times as long


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (lambda wav: b"", "the file is empty"),
        (lambda wav: b"this is no sound" * 20, "not a readable WAV or FLAC file: Format not"),
        (lambda wav: wav[:20], "not a readable WAV or FLAC file"),
        (lambda wav: wav[:44], "holds no samples"),
        (lambda wav: _floats(np.nan), "samples that are not finite numbers"),
        (lambda wav: _floats(-np.inf), "samples that are not finite numbers"),
        (lambda wav: _floats(-3e38), "samples of 1e.06 or more"),
        (lambda wav: _floats(0.1, rate=1), "the file has 1 samples per second, and only 1,000 to"),
        (lambda wav: _flac(2**36 - 1)[1], "claims 68,719,476,735 samples, but the file holds 300"),
        (lambda wav: _flac(301)[1], "claims 301 samples, but the file holds 300"),
    ],
)
def test_bad_files_name_the_reason(tmp_path, data, reason):
    sounds.write_wav(tmp_path / "a.wav", np.arange(100))
    with pytest.raises(ValueError, match=reason):
        decode(data((tmp_path / "a.wav").read_bytes()), 8000)
