"""One evaluation as all protocols see it: what, by which images, where."""

import re
from pathlib import Path
from typing import Any, NamedTuple

from jax.sharding import Mesh
from ml_collections import ConfigDict

from ssl_jax import components
from ssl_jax.assess.subjects import RAW, TRAINED, UNTRAINED, Subject
from ssl_jax.data.source import Source
from ssl_jax.inputs import Input


class Setup(NamedTuple):
    """What the protocols need; the config's `data` section is that of the images."""

    config: ConfigDict
    mesh: Mesh
    subject: Subject
    source: Source
    test: Source | None  # labelled
    path: Path
    transfer: bool = False  # to other data than those trained on

    @property
    def input(self) -> Input:
        """The input of the config."""
        return components.make_input(self.config)

    @property
    def sets(self) -> dict[str, str]:
        """The columns of the feature sets, by the names that people read."""
        names = {self.subject.name: TRAINED}
        baselines = {UNTRAINED: UNTRAINED, self.input.raw_name: RAW}
        return names | (baselines if self.config.eval.baselines else {})

    @property
    def tells_classes(self) -> bool:
        """Whether the classes of the subject's own classifier are those of the data."""
        return self.subject.classes == tuple(self.source.classes)

    def file_name(self, evaluation: str) -> str:
        """Of an evaluation in eval/, without its ending."""
        return f"transfer_{slug(self.config)}_{evaluation}" if self.transfer else evaluation

    def marked(self, evaluation: dict[str, Any]) -> dict[str, Any]:
        """With the name of the data, if they are others than the run's."""
        return evaluation | ({"data": self.source.name} if self.transfer else {})

    def images(self, used: int) -> dict[str, Any]:
        """What a protocol says of the images, `used` of them to train classifiers."""
        data, size = self.config.data, self.source.size
        drawn = f", drawn by seed {self.config.train.seed}" if used < size else ""
        return {
            "train images": f"{used:,} of {size:,} ({data.split}){drawn}",
            **test_images(self.config, self.source),
            "untrained encoder": "initial weights; BatchNorm statistics of initialisation "
            "(mean 0, variance 1)",
        }


def test_images(config: ConfigDict, source: Source) -> dict[str, str]:
    """What a protocol says of the test images."""
    return {
        "test images": f"{config.data.eval_split} of {source.name}",
        "view": components.make_input(config).description,
    }


def slug(config: ConfigDict) -> str:
    """A data set's name as a part of a file's: "cifar10", "folder_flowers"."""
    name = config.data.source.removeprefix("tfds:")
    if name == "folder":
        name += "_" + Path(config.data.dir).expanduser().resolve().name
    return re.sub(r"\W+", "_", name).strip("_").lower()
