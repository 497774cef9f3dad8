"""How many images a training has, in how many classes: from the data, or known, or told."""

from typing import NamedTuple

from ssl_jax.data import sources
from ssl_jax.errors import USAGE, Fault


class Counts(NamedTuple):
    """Training images and classes; width and height of a usual image."""

    images: int
    classes: int
    size: tuple[int, int]


USUAL = (500, 375)  # ImageNet's most frequent
KNOWN = {
    "tfds:imagenet2012": Counts(1_281_167, 1000, USUAL),
    "tfds:cifar10": Counts(50_000, 10, (32, 32)),
    "tfds:cifar100": Counts(50_000, 100, (32, 32)),
}


def of(source: str, *, data_dir: str, split: str, images: int = 0, classes: int = -1) -> Counts:
    """The counts of a data source.

    Args:
      source, data_dir, split: `data` of the config.
      images: the number of training images where it is told; 0: find out.
      classes: likewise; 0 for no labels, -1: find out.

    Raises:
      Fault: nobody knows (64), or the data that `data_dir` names are not there.
    """
    known = KNOWN.get(source) if split == "train" else None
    told = Counts(images, classes, known.size if known else USUAL)
    if images and classes >= 0:
        return told
    if data_dir or source == "digits":
        found = sources.get(source, data_dir=data_dir, split=split)
        known = Counts(found.size, len(found.classes), told.size)
    if known is None:
        raise Fault(
            f"how many images has split {split!r} of {source}? Give --images=NUMBER and "
            "--classes=NUMBER (0 without labels), or where the data lie by --config.data.dir",
            USAGE,
        )
    return Counts(images or known.images, classes if classes >= 0 else known.classes, known.size)
