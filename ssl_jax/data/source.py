"""Defines a data source: a stable number for every example, its record and its labels."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ssl_jax.errors import BAD_CONFIG, Fault, printable

Record = dict[str, np.ndarray]
Labels = dict[str, int]
Facts = Mapping[str, np.ndarray]
Spec = Mapping[str, tuple[Any, tuple[int | None, ...]]]  # name -> (dtype, shape); None: any length


@dataclasses.dataclass(frozen=True)
class Source:
    """The examples of one split, numbered [0, size). `load` may be called from many threads.

    The numbers depend only on the data, so they are the same in every process and every run.
    """

    name: str
    size: int

    record: Spec
    """The arrays of a record, as `inputs.Input.record` describes them."""

    load: Callable[[int], tuple[Record, Labels]]
    """index -> (record, labels). Raises ValueError with the reason if the data of the example are
    damaged, and Fault if they cannot be read."""

    describe: Callable[[int], str]
    """index -> location of the example for messages: a file, or a shard and a record number. No two
    examples have the same, and an example has the same in every split of the user's files."""

    read_labels: Callable[[int], Labels] = lambda index: {}
    """index -> labels, without decoding the record. -1 means that the label is missing."""

    class_names: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    """Names of the classes of every label field, in the order of the label's numbers. Empty if the
    examples have no labels."""

    split: str = ""
    """The split in words, for messages and descriptions; "" takes the name in the config."""

    default_label: str = "label"
    """The label field to use unless `data.label` names another; no label if there is none such."""

    label_field: str = ""
    """The label field that the probe and evaluation use; "" without labels."""

    identity: Callable[[], str] = lambda: ""
    """() -> hash of the files, equal on every host that has the same data; "" if unknown. A subset
    has the hash of the whole source."""

    facts: Facts = dataclasses.field(default_factory=dict)
    """Arrays that were made from the training examples and that a run keeps, such as a tokenizer,
    or the words of a text and their counts; see `rundir.facts`. Other examples for the same run, of
    a test split or of other data, are opened with the facts of the run."""

    group: Callable[[int], int] | None = None
    """index -> number of the group, such as a document, of which the example is a part. Held-out
    examples are whole groups. None: each example stands by itself."""

    group_noun: str = "group"
    """Word for a group, for messages."""

    unlabelled_test: bool = False
    """A test split is useful even without labels, for example for the retrieval of pairs."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes of the label field in use; () without labels."""
        return self.class_names.get(self.label_field, ())

    def label(self, labels: Labels) -> int:
        """Returns the label in use among the labels of one example; -1 if it is missing."""
        return labels.get(self.label_field, -1)

    def read_label(self, index: int) -> int:
        """Returns the label in use of example `index`.

        The record is decoded only if a labelled source has no `read_labels`.
        """
        labels = self.read_labels(index)
        if self.class_names and not labels:
            labels = self.load(index)[1]
        return self.label(labels)


def choose_label(source: Source, field: str) -> Source:
    """Returns the source with `field` as the label field in use.

    Args:
      field: name of a label field; "" takes the source's default. A dataset whose labels have
        other names counts as unlabelled.

    Raises:
      Fault: the source has no such label field.
    """
    names = list(source.class_names)
    if not field:
        field = source.default_label if source.default_label in names else ""
    elif field not in names:
        fields = ", ".join(map(printable, names))
        known = f"its label fields are: {fields}" if names else "it has no labels"
        message = f"data.label={field!r}: {source.name} has no label of this name; {known}"
        raise Fault(message, BAD_CONFIG)
    return dataclasses.replace(source, label_field=field)


def no_examples(name: str) -> Source:
    """Returns a source without examples, in place of data that are not needed."""

    def load(index: int) -> tuple[Record, Labels]:
        raise ValueError(f"{name} has no example {index}")

    return Source(name=name, size=0, record={}, load=load, describe=str)


def subset(source: Source, rows: np.ndarray) -> Source:
    """Returns a source with only the examples `rows`, numbered from 0 in this order."""
    group = source.group
    return dataclasses.replace(
        source,
        size=len(rows),
        group=(lambda index: group(int(rows[index]))) if group else None,
        load=lambda index: source.load(int(rows[index])),
        describe=lambda index: source.describe(int(rows[index])),
        read_labels=lambda index: source.read_labels(int(rows[index])),
    )


def image_record(channels: int) -> Spec:
    """Returns the spec of an image's record: "image" uint8 [h, w, channels] of any size."""
    return {"image": (np.uint8, (None, None, channels))}
