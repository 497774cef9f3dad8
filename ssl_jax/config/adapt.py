"""Sets the fields of a config that are AUTO from the training data.

The `folder` variants in `configs/` use AUTO, because nobody knows the user's data beforehand. Every
rule is a pure function of the config and of `DataFacts`. All processes of a job and every resume of
the same command therefore get the same values. The run stores these values, not AUTO.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from ssl_jax.errors import BAD_DATA, Fault
from ssl_jax.field import AUTO
from ssl_jax.models.options import IMAGENET

MIN_IMAGES = 16
MIN_BATCH, MAX_BATCH = 16, 256
MIN_STEPS, MIN_EPOCHS = 500, 100
WARMUP_FRACTION, MAX_WARMUP = 0.1, 10.0  # of the run; in epochs
MAX_QUEUE = 4096
BN_GROUPS = 4
MAX_NEIGHBOURS = 20
FEW_LABELS = 10
OTHER_MEAN, OTHER_STD = 0.5, 0.25  # of the pixels of images that are not RGB


class DataFacts(NamedTuple):
    """Facts about the training data that the rules use."""

    images: int
    """Number of training examples."""

    classes: int
    """Number of classes; 0 without labels."""

    smallest_class: int
    """Examples of the class that has the fewest among those that evaluation uses; 0 without labels
    or if unknown."""


def batch_size(config: ConfigDict, facts: DataFacts) -> int:
    """Returns the largest power of two up to images / 8, in [16, 256], but at most images / 2.

    An epoch then has about eight steps or more, and a power of two divides over the devices. With
    fewer than 16 images, BatchNorm and contrastive losses compare too few of them.
    """
    del config
    wanted = max(power_of_two(facts.images // 8), MIN_BATCH)
    return min(wanted, MAX_BATCH, power_of_two(facts.images // 2))


def epochs(config: ConfigDict, facts: DataFacts) -> float:
    """Returns 100 epochs, or more for few images, so that the run has at least 500 steps.

    If train.steps is given, returns the epochs of these steps.
    """
    step = config.train.batch_size / facts.images  # in epochs
    if config.train.steps:
        return config.train.steps * step
    return float(max(MIN_EPOCHS, math.ceil(MIN_STEPS * step)))


def warmup_epochs(config: ConfigDict, facts: DataFacts) -> float:
    """Returns 10 % of the run, at most 10 epochs, at least one step."""
    step = config.train.batch_size / facts.images  # in epochs
    run = config.train.steps * step or config.train.epochs  # steps replace epochs
    return max(min(WARMUP_FRACTION * run, MAX_WARMUP), step)


def bn_group(config: ConfigDict, facts: DataFacts) -> int:
    """Returns the rows of a quarter of the batch: MoCo permutes keys among several groups."""
    del facts
    return config.augment.views * config.train.batch_size // BN_GROUPS


def mean(config: ConfigDict, facts: DataFacts) -> tuple[float, ...]:
    """Returns ImageNet's mean for RGB images, else 0.5 per channel; 0 for encoders that see Lab."""
    del facts
    channels = config.data.channels
    if config.model.get("colors", "rgb") != "rgb":
        return (0.0,) * channels
    return IMAGENET["mean"] if channels == 3 else (OTHER_MEAN,) * channels


def std(config: ConfigDict, facts: DataFacts) -> tuple[float, ...]:
    """Returns ImageNet's deviation for RGB images, else 0.25 per channel; 1 for Lab."""
    del facts
    channels = config.data.channels
    if config.model.get("colors", "rgb") != "rgb":
        return (1.0,) * channels
    return IMAGENET["std"] if channels == 3 else (OTHER_STD,) * channels


def queue_size(config: ConfigDict, facts: DataFacts) -> int:
    """Returns the largest multiple of the batch up to 4096 and up to images - batch.

    A longer queue would hold the keys of an image's own earlier views among its negatives.
    """
    batch = config.train.batch_size
    return max(min(facts.images - batch, MAX_QUEUE) // batch, 1) * batch


def clusters(config: ConfigDict, facts: DataFacts) -> int:
    """Returns half the batch: a batch then has two images per prototype or component."""
    del facts
    return max(config.train.batch_size // 2, 1)


def neighbours(config: ConfigDict, facts: DataFacts) -> int:
    """Returns half the mean size of a class, at most 20: more neighbours have other classes."""
    del config
    return max(min(facts.images // (2 * max(facts.classes, 1)), MAX_NEIGHBOURS), 1)


def labels_per_class(config: ConfigDict, facts: DataFacts) -> tuple[int, ...]:
    """Returns 10 labels per class and all labels; only all labels if a class has at most 10."""
    del config
    return (FEW_LABELS, 0) if facts.smallest_class > FEW_LABELS else (0,)


# A rule may use the fields above it.
RULES: dict[str, Callable[[ConfigDict, DataFacts], Any]] = {
    "train.batch_size": batch_size,
    "train.epochs": epochs,
    "optim.warmup_epochs": warmup_epochs,
    "model.bn_group": bn_group,
    "model.mean": mean,
    "model.std": std,
    "method.queue_size": queue_size,
    "method.memory_size": queue_size,
    "method.prototypes": clusters,
    "method.components": clusters,
    "eval.knn_k": neighbours,
    "eval.labels_per_class": labels_per_class,
}


def auto_fields(config: ConfigDict) -> list[str]:
    """Returns the names of the fields that are AUTO, such as "train.batch_size"."""
    sections = ((name, name.split(".")) for name in RULES)
    return [
        name
        for name, (section, field) in sections
        if config.get(section, {}).get(field) in (AUTO, (AUTO,))
    ]


def adapt(config: ConfigDict, facts: DataFacts) -> tuple[ConfigDict, dict[str, Any]]:
    """Returns a copy of the config without AUTO, and the values of the fields that were AUTO.

    Raises:
      Fault: there are fewer than MIN_IMAGES images, and the batch size is AUTO.
    """
    config, values = config.copy_and_resolve_references(), {}
    for name in auto_fields(config):
        if name == "train.batch_size" and facts.images < MIN_IMAGES:
            raise Fault(
                f"{facts.images} training images are too few to learn from; add images, at least "
                f"{MIN_IMAGES}, or pass --config.train.batch_size=NUMBER",
                BAD_DATA,
            )
        section, field = name.split(".")
        values[name] = config[section][field] = RULES[name](config, facts)
    return config, values


def power_of_two(number: int) -> int:
    """Returns the largest power of two up to `number`; 1 for numbers below 1."""
    return 1 << max(number.bit_length() - 1, 0)
