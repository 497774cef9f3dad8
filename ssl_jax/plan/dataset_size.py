"""Size of a training set: from flags, from a table of known datasets, or from the data."""

from typing import Any, NamedTuple

from ssl_jax import plugins
from ssl_jax.data import sources
from ssl_jax.data.holdout import held_out_count, held_out_size
from ssl_jax.errors import USAGE, Fault


class DatasetSize(NamedTuple):
    """Size of a training set.

    Attributes:
      images: number of training images.
      classes: number of classes; 0 without labels.
      image_size: width and height in pixels of a typical image.
    """

    images: int
    classes: int
    image_size: tuple[int, int]


TYPICAL_IMAGE_SIZE = (500, 375)  # ImageNet's most frequent
KNOWN = {
    "tfds:imagenet2012": DatasetSize(1_281_167, 1000, TYPICAL_IMAGE_SIZE),
    "tfds:cifar10": DatasetSize(50_000, 10, (32, 32)),
    "tfds:cifar100": DatasetSize(50_000, 100, (32, 32)),
}


def dataset_size(
    source: str,
    *,
    data_dir: str,
    split: str,
    label: str = "",
    holdout: float = 0.0,
    images: int = 0,
    classes: int = -1,
    **options: Any,
) -> DatasetSize:
    """Returns the size of a data source.

    Args:
      source, data_dir, split, label, holdout: fields of the config's `data` section.
      images: number of training images; 0 to find out.
      classes: number of classes, 0 for no labels; -1 to find out.
      **options: options of the source, see `sources.open_source`.

    Raises:
      Fault: the size is unknown (exit code 64), or there is no data in `data_dir`.
    """
    known = KNOWN.get(source.removeprefix("captions:")) if split == "train" else None
    image_size = known.image_size if known else TYPICAL_IMAGE_SIZE
    if images and classes >= 0:
        return DatasetSize(images, classes, image_size)
    held_out = held_out_count(known.images, holdout) if known else 0
    if data_dir or source == "digits" or plugins.is_external(source):
        data = sources.open_source(source, data_dir=data_dir, split=split, label=label, **options)
        known = DatasetSize(data.size, len(data.classes), image_size)
        held_out = held_out_size(data, holdout)
    if known is None:
        raise Fault(
            f"the number of images in split {split!r} of {source} is unknown. Pass "
            "--images=NUMBER and --classes=NUMBER (0 without labels), or the folder of the data "
            "by --config.data.dir",
            USAGE,
        )
    return known._replace(
        images=images or known.images - held_out, classes=classes if classes >= 0 else known.classes
    )
