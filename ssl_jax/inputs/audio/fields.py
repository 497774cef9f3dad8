"""Fields of the config for sound: the random windows (`augment`) and the data (`data`)."""

from collections.abc import Mapping
from typing import Any

from ssl_jax.field import (
    AT_LEAST_1,
    BELOW_1,
    FINITE_ABOVE_0,
    IDENTITY,
    INFINITY,
    PROBABILITY,
    Field,
    any_value,
    number,
    numbers,
)
from ssl_jax.inputs.audio.decode import RATES

# float32 overflows far outside these limits.
DECIBELS = numbers(
    "(low, high) in dB, with -200 <= low <= high <= 200",
    lambda pair: len(pair) == 2 and -200 <= pair[0] <= pair[1] <= 200,
)
HERTZ = numbers(
    "(low, high) in Hz, with 0 < low <= high",
    lambda pair: len(pair) == 2 and 0 < pair[0] <= pair[1] < INFINITY,
)
RATE = number(f"from {RATES[0]} to {RATES[1]}", lambda rate: RATES[0] <= rate <= RATES[1])
STRING = any_value("a string")
# Random changes of a window besides its place. Light views have none of them.
CHANGES = ("gain", "lowpass", "highpass", "noise", "mask")

FIELDS = (
    Field("window", 20480, "Length of a view, in samples.", AT_LEAST_1, IDENTITY),
    Field("views", 1, "Number of random windows of a recording.", AT_LEAST_1, IDENTITY),
    Field(
        "max_seconds",
        10.0,
        "Longest part of a recording that evaluation hears, from its start.",
        FINITE_ABOVE_0,
        IDENTITY,
    ),
    Field("gain", (0.0, 0.0), "Range of the change of volume, in dB.", DECIBELS, IDENTITY),
    Field("lowpass", 0.0, "Probability of a low-pass filter.", PROBABILITY, IDENTITY),
    Field("lowpass_cutoff", (500.0, 4000.0), "Range of its cut-off, in Hz.", HERTZ, IDENTITY),
    Field("highpass", 0.0, "Probability of a high-pass filter.", PROBABILITY, IDENTITY),
    Field("highpass_cutoff", (50.0, 500.0), "Range of its cut-off, in Hz.", HERTZ, IDENTITY),
    Field("noise", 0.0, "Probability of white noise.", PROBABILITY, IDENTITY),
    Field("noise_snr", (5.0, 30.0), "Range of the ratio of signal to noise.", DECIBELS, IDENTITY),
    Field("mask", 0.0, "Largest fraction of the window that is set to zero.", BELOW_1, IDENTITY),
)  # fmt: skip
DATA_FIELDS = (
    Field(
        "sample_rate",
        16000,
        "Samples per second; files of another rate are resampled.",
        RATE,
        IDENTITY,
    ),
    Field(
        "pattern",
        "",
        "File names without extension, such as '{digit}_{speaker}_{take}': each field is a label; "
        "'': the class folders are the labels.",
        STRING,
        IDENTITY,
    ),
    Field(
        "group",
        "",
        "Field of the pattern, or 'folder', whose value is the group of a recording, for negatives "
        "of the same group; '': none.",
        STRING,
        IDENTITY,
    ),
)
ENCODER_DATA = ("sample_rate",)


def default_fields() -> dict[str, Any]:
    """Returns the default of `config.augment`."""
    return {field.name: field.default for field in FIELDS}


def light_fields(augment: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of one window at a random place, without other changes."""
    kept = {name: value for name, value in augment.items() if name not in CHANGES}
    return default_fields() | kept | {"views": 1}


def problems(augment: Mapping[str, Any]) -> list[str]:
    """Returns one sentence per mistake in `config.augment`."""
    needs = ((field.name, field.valid.problem(augment[field.name])) for field in FIELDS)
    return [f"augment.{name}={augment[name]!r}: {need}" for name, need in needs if need]
