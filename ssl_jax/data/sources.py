"""Where examples come from: a stable number for every example, and its pixels and label."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable

import numpy as np

from ssl_jax.errors import BAD_CONFIG, MISSING_INPUT, Fault


@dataclasses.dataclass(frozen=True)
class Source:
    """The examples of one split, numbered [0, size); `load` may be called from many threads.

    The numbers depend on the data alone, so they are the same in every process and every run.
    """

    name: str
    size: int
    classes: tuple[str, ...]
    """Names by label; empty if the examples have no labels."""

    load: Callable[[int], tuple[np.ndarray, int]]
    """index -> (upright RGB pixels, uint8 [h, w, 3]; label, -1 if none). Raises ValueError with
    the reason if this example's data are damaged, Fault if they cannot be read at all."""

    describe: Callable[[int], str]
    """index -> where the example lies, for messages: a file, or a shard and a record number."""

    label: Callable[[int], int]
    """index -> label, -1 if none, without decoding the pixels."""


def get(name: str, *, data_dir: str, split: str) -> Source:
    """Returns the source called `name`.

    "digits" (scikit-learn's, needs no files), "folder" (images below data_dir/split: see
    `folder.open_folder`) or "tfds:NAME[/CONFIG][:VERSION]" (a dataset that TensorFlow Datasets
    prepared in data_dir: see `prepared.open_prepared`).

    Raises:
      Fault: the data are missing (66) or bad (65), or there is no such source (78).
    """
    if name == "digits":
        return _digits(split)
    if name == "folder":
        from ssl_jax.data import folder

        return folder.open_folder(data_dir, split)
    if name.startswith("tfds:"):
        from ssl_jax.data import prepared

        return prepared.open_prepared(name.removeprefix("tfds:"), data_dir, split)
    raise Fault(f"unknown data source {name!r}; there are: digits, folder, tfds:NAME", BAD_CONFIG)


def subset(source: Source, rows: np.ndarray) -> Source:
    """The source with the examples `rows` alone, numbered anew in this order."""
    return dataclasses.replace(
        source,
        size=len(rows),
        load=lambda index: source.load(int(rows[index])),
        describe=lambda index: source.describe(int(rows[index])),
        label=lambda index: source.label(int(rows[index])),
    )


DIGITS_TEST = 500


@functools.cache
def _digits_order() -> list[int]:
    """All 1,797 digits in an order that depends on no library: by the SHA-256 of their number."""
    return sorted(range(1797), key=lambda i: hashlib.sha256(str(i).encode()).digest())


def _digits(split: str) -> Source:
    """The 1,797 handwritten digits of scikit-learn, 8×8 grey, as RGB (value · 255 / 16, rounded).

    "test" is the first 500 by the SHA-256 of their number, "train" the other 1,297: fixed for all
    time, not stratified.
    """
    from sklearn.datasets import load_digits

    slices = {"train": slice(DIGITS_TEST, None), "test": slice(0, DIGITS_TEST)}
    if split not in slices:
        raise Fault(f"digits has no split {split!r}; there are: train, test", MISSING_INPUT)
    rows = _digits_order()[slices[split]]
    digits = load_digits()
    grey = np.rint(digits.images[rows] * (255 / 16)).astype(np.uint8)
    pixels = np.repeat(grey[..., None], 3, axis=-1)
    labels = digits.target[rows]
    return Source(
        name="digits",
        size=len(rows),
        classes=tuple("0123456789"),
        load=lambda index: (pixels[index], int(labels[index])),
        describe=lambda index: f"digit {rows[index]} of scikit-learn's load_digits",
        label=lambda index: int(labels[index]),
    )
