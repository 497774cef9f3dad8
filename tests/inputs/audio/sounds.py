"""Writes small sound files for tests, by the standard library's `wave` alone."""

import wave

import numpy as np


def write_wav(path, samples, rate=8000, width=2):
    """Writes integers [t] or [t, channels] of `width` bytes each."""
    samples = np.asarray(samples, np.int64)
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    raw = samples.reshape(-1, 1).astype("<i8").view(np.uint8).reshape(-1, 8)[:, :width]
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(raw.tobytes())


def tone(hertz, seconds=0.2, rate=8000, amplitude=8000, seed=0):
    """Returns a sine with a little noise, integers of 16 bits."""
    t = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(seed).normal(size=len(t)) * 100
    return (amplitude * np.sin(2 * np.pi * hertz * t) + noise).round().astype(int)


def write_digits(folder, *, takes=4, seconds=0.2):
    """Writes recordings named DIGIT_SPEAKER_TAKE.wav: tones whose pitch depends on the speaker."""
    folder.mkdir(parents=True, exist_ok=True)
    for digit in range(2):
        for number, speaker in enumerate(("anna", "bert", "carl")):
            for take in range(takes):
                sound = tone(300 * (number + 1) + 60 * digit, seconds, seed=take)
                write_wav(folder / f"{digit}_{speaker}_{take}.wav", sound)
    return folder
