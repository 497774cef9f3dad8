"""Everything that a protocol may use: subject, data, options, and the features made of them."""

import dataclasses
import re
from functools import cached_property
from pathlib import Path
from typing import Any

from jax.sharding import Mesh, NamedSharding
from ml_collections import ConfigDict

from ssl_jax import components, inputs, parallel
from ssl_jax.data.source import Source
from ssl_jax.evals import extract, files
from ssl_jax.evals.results import FeatureSet
from ssl_jax.evals.subjects import RAW, TRAINED, UNTRAINED, Subject
from ssl_jax.inputs import Input


@dataclasses.dataclass(frozen=True)
class Context:
    """An evaluation of a subject. Features are computed on first use and then kept."""

    config: ConfigDict
    """Config of the subject, whose `data` section is that of the evaluation data."""

    mesh: Mesh
    subject: Subject
    source: Source
    """Training examples: they train classifiers and fill the bank of kNN."""

    test: Source | None
    """Labelled test examples; None without a labelled test split."""

    path: Path
    """Workdir in which eval/ is written."""

    transfer: bool = False
    """The data are other data than the subject was trained on."""

    label: str = ""
    """Label field, if it is not the one that the subject's own evaluation uses; else ""."""

    unlabelled_test: Source | None = None
    """Test examples without labels, for protocols that need none; see
    `components.open_unlabelled_test`."""

    @property
    def is_own(self) -> bool:
        """True if data and label field are the subject's own; only then its files are replaced."""
        return not self.transfer and not self.label

    @property
    def options(self) -> ConfigDict:
        """The config's `eval` section."""
        return self.config.eval

    @property
    def seed(self) -> int:
        """Seed of the run, for every draw."""
        return self.config.train.seed

    @property
    def sharding(self) -> NamedSharding:
        """Sharding of rows over the devices."""
        return parallel.rows(self.mesh)

    @cached_property
    def input(self) -> Input:
        """The input of the config."""
        return components.make_input(self.config)

    @property
    def noun(self) -> str:
        """Word for one example, for descriptions and messages."""
        return self.input.noun

    @property
    def columns(self) -> dict[str, str]:
        """Column of each feature set, by the name in tables and files."""
        names = {self.subject.name: TRAINED}
        if not self.options.baselines:
            return names
        hand_made = {name: name for name in self.input.baselines} or {self.input.raw_name: RAW}
        return names | {UNTRAINED: UNTRAINED} | hand_made

    @property
    def tells_classes(self) -> bool:
        """True if the classes of the subject's own classifier are those of the data."""
        return self.subject.classes == tuple(self.source.classes)

    @cached_property
    def held_out(self) -> Source:
        """The test examples, labelled or not; training examples if the data have no others.

        The `split` of training examples says what they are.
        """
        words = f"{self.source.split or self.config.data.split} (training examples)"
        training = dataclasses.replace(self.source, split=words)
        return self.test or self.unlabelled_test or training

    @cached_property
    def test_columns(self) -> extract.Columns:
        """Features of the test split; without one, of at most `files.MAX_SAMPLE` train examples.

        Includes `extract.PREDICTION` if the subject's own classifier knows the classes of the data.
        """
        return self._read(self.test or self.source, 0 if self.test else files.MAX_SAMPLE)

    @cached_property
    def embedded(self) -> extract.Columns:
        """Embeddings of `held_out` by the subject's towers; see `extract.embed_parts`."""
        return extract.embed_parts(self.config, self.input, self.subject, self.mesh, self.held_out)

    @cached_property
    def train_columns(self) -> extract.Columns:
        """Features of the training examples, at most `eval.max_train` of them."""
        return self._read(self.source, self.options.max_train)

    @cached_property
    def _read(self) -> extract.Reader:
        # One reader for both splits: its function is compiled once.
        classify = self.is_own and self.test is not None and self.tells_classes
        return extract.reader(self.config, self.input, self.subject, self.mesh, classify=classify)

    @cached_property
    def sets(self) -> dict[str, FeatureSet]:
        """Features and labels of both splits, by feature set."""
        train, test = self.train_columns, self.test_columns
        return {
            name: (train[column], train["label"], test[column], test["label"])
            for name, column in self.columns.items()
        }

    def file_name(self, evaluation: str) -> str:
        """Returns the name of an evaluation's file in eval/, without ".json".

        Names of other data or of another label field never equal those of the subject's own.
        """
        prefix = f"transfer_{data_slug(self.config)}_" if self.transfer else ""
        prefix += f"label_{slug(self.label)}_" if self.label else ""
        return prefix + evaluation

    def marked(self, evaluation: dict[str, Any]) -> dict[str, Any]:
        """Returns an evaluation with the names of other data and of another label field."""
        data = {"data": self.source.name} if self.transfer else {}
        return evaluation | data | ({"label": self.label} if self.label else {})

    def describe_examples(self, used: int = 0) -> dict[str, Any]:
        """Returns the description of the examples for a protocol.

        Args:
          used: number of training examples that trained classifiers; those of `sets` by default.
        """
        size, noun = self.source.size, self.noun
        split = self.source.split or self.config.data.split
        used = used or len(self.train_columns["label"])
        drawn = f", drawn by seed {self.seed}" if used < size else ""
        return {
            f"train {noun}s": f"{used:,} of {size:,} ({split}){drawn}",
            **describe_test(self.config, self.input, self.test or self.source),
            "untrained encoder": "initial weights; BatchNorm statistics of initialisation "
            "(mean 0, variance 1)",
        }


def describe_test(config: ConfigDict, example_input: Input, test: Source) -> dict[str, str]:
    """Returns the description of the test examples for a protocol."""
    return {
        f"test {example_input.noun}s": f"{test.split or config.data.eval_split} of {test.name}",
        "view": example_input.description,
    }


def data_slug(config: ConfigDict) -> str:
    """Returns a data set's name as a part of a file's name: "cifar10", "folder_flowers"."""
    name = config.data.source.removeprefix("tfds:")
    if inputs.is_folder(config.data.source):
        name += "_" + Path(config.data.dir).expanduser().resolve().name
    return slug(name)


def slug(name: str) -> str:
    """Returns a name in lower-case letters, digits and underscores."""
    return re.sub(r"\W+", "_", name).strip("_").lower()
