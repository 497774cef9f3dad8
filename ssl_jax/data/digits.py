"""scikit-learn's handwritten digits as a source; it needs no files."""

import functools
import hashlib

import numpy as np

from ssl_jax.data.source import Source, image_record
from ssl_jax.errors import MISSING_INPUT, Fault
from ssl_jax.inputs.image import decode

TEST_IMAGES = 500


def open_digits(split: str, channels: int = 3) -> Source:
    """Opens the 1,797 handwritten digits: 8×8 grey pixels with the value round(v · 255 / 16).

    "test" holds the first 500 digits in the order of the SHA-256 of their number, and "train" the
    other 1,297. The split never changes and is not stratified.

    Args:
      split: "train" or "test".
      channels: number of channels; the grey value is repeated.

    Raises:
      Fault: no such split (66), or images of `channels` channels do not exist (78).
    """
    from sklearn.datasets import load_digits

    decode.check_channels(channels)
    slices = {"train": slice(TEST_IMAGES, None), "test": slice(0, TEST_IMAGES)}
    if split not in slices:
        message = f"digits has no split {split!r}; available splits: train, test"
        raise Fault(message, MISSING_INPUT)
    rows = _order()[slices[split]]
    digits = load_digits()
    grey = np.rint(digits.images[rows] * (255 / 16)).astype(np.uint8)
    pixels = np.repeat(grey[..., None], channels, axis=-1)
    labels = [{"label": int(label)} for label in digits.target[rows]]
    return Source(
        name="digits",
        size=len(rows),
        record=image_record(channels),
        load=lambda index: ({"image": pixels[index]}, labels[index]),
        describe=lambda index: f"digit {rows[index]} of scikit-learn's load_digits",
        read_labels=labels.__getitem__,
        class_names={"label": tuple("0123456789")},
        label_field="label",
        identity=lambda: hashlib.sha256(grey.tobytes() + digits.target[rows].tobytes()).hexdigest(),
    )


@functools.cache
def _order() -> list[int]:
    """Returns the numbers of all 1,797 digits, sorted by their SHA-256; depends on no library."""
    return sorted(range(1797), key=lambda i: hashlib.sha256(str(i).encode()).digest())
