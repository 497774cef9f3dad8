"""Checks before training that the evaluation at its end can run on these data."""

from collections.abc import Iterator

import numpy as np
from ml_collections import ConfigDict

from ssl_jax.data.labels import sample_indices
from ssl_jax.data.source import Source
from ssl_jax.errors import BAD_CONFIG, BAD_DATA, MISSING_INPUT, Fault, Faults
from ssl_jax.evals import evaluation, protocols
from ssl_jax.evals.protocols import Protocol
from ssl_jax.training.parts import Parts

# Reading a label of a prepared dataset reads the whole record, so not every label is read.
SAMPLE = 1000  # labels that are read to find unlabelled data
MAX_LABELS = 50_000  # labels that are read to count the classes
NO_EVALUATION = 'train without evaluation by labels: --config.data.eval_split=""'


def problems(config: ConfigDict, parts: Parts) -> list[Fault]:
    """Returns the faults that evaluation would meet after training.

    Args:
      config: config of the run.
      parts: parts of the run.
    """
    chosen = _chosen(config, parts)
    faults = _stopping_problems(config, parts) + [
        Fault(f"{reason}: leave {one.name!r} out of eval.protocols", BAD_CONFIG)
        for one in chosen
        if not evaluation.is_default(one) and (reason := evaluation.missing_part(one, parts.input))
    ]
    faults += [
        Fault(text, MISSING_INPUT)
        for one in chosen
        if not one.needs.labels and (text := one.problem(config.eval, lambda enough: None))
    ]
    checked = Faults()
    for one in chosen:
        if not one.absent(config.eval):
            with checked.collect():
                one.check(config.eval, parts.source.facts)
    faults += checked.found
    labelled = [protocol for protocol in chosen if protocol.needs.labels]
    if parts.test is None or not labelled:
        return faults
    faults += unlabelled(parts.test, f"data.eval_split={config.data.eval_split}")
    faults += unlabelled(parts.source, f"data.split={config.data.split}")
    if not faults:
        labels = _UsedLabels(config, parts.source)
        texts = [
            _single_class(labels, parts.source),
            *(protocol.problem(config.eval, labels.count) for protocol in labelled),
        ]
        faults += [Fault(text, BAD_DATA) for text in texts if text]
    return faults


def _stopping_problems(config: ConfigDict, parts: Parts) -> list[Fault]:
    """Returns the faults of a run that early stopping could not judge."""
    on = config.train.stop_on
    field, advice = f"train.stop_on={on!r}", 'train all steps by --config.train.stop_on=""'
    if not on:
        return []
    if len(parts.source.classes) < 2:
        message = f"{field}: {parts.source.name} has no labels of two classes or more; {advice}"
        return [Fault(message, BAD_DATA)]
    if on == "knn" and "knn" not in parts.method.evals:
        message = f"{field}: kNN does not suit the method {config.method.name}"
        return [Fault(f"{message}; choose 'probe', or {advice}", BAD_CONFIG)]
    if on == "probe" and not parts.abstract_state.probe:
        message = f"{field}: encode of the method {config.method.name} returns no 'features'"
        return [Fault(f"{message}, so there is no probe; {advice}", BAD_CONFIG)]
    return unlabelled(parts.source, field, advice)


def unlabelled(source: Source, where: str, advice: str = NO_EVALUATION) -> list[Fault]:
    """Returns a fault if some of a thousand examples of `source` have no label.

    Args:
      source: examples whose labels an evaluation needs.
      where: field and value that chose or need the examples, for the message.
      advice: how to do without the labels, for the message.
    """
    rows = np.linspace(0, source.size - 1, min(SAMPLE, source.size)).astype(int)
    missing = sum(source.read_label(int(row)) < 0 for row in rows)
    if not missing:
        return []
    message = f"{where}: {missing} of {len(rows)} examples of {source.name} have no label, but "
    return [Fault(f"{message}all need one. Choose a labelled split, or {advice}", BAD_DATA)]


def warnings(config: ConfigDict, parts: Parts) -> list[str]:
    """Returns one sentence for each protocol that will do less than the config says."""
    chosen = _chosen(config, parts)
    labelled = [protocol.name for protocol in chosen if protocol.needs.labels]
    if labelled and parts.test is None:
        return [f"no labelled test {parts.input.noun}s, so {', '.join(labelled)} will not run"]
    bank = min(config.eval.max_train or parts.source.size, parts.source.size)
    if "knn" in labelled and config.eval.knn_k > bank:
        return [
            f"eval.knn_k={config.eval.knn_k} is more than the {bank} training {parts.input.noun}s, "
            "so all of them vote for every test example. Set --config.eval.knn_k="
            f"{max(1, bank // 10)}"
        ]
    return []


def _chosen(config: ConfigDict, parts: Parts) -> list[Protocol]:
    """Returns the protocols that will run on the method."""
    every = map(protocols.get, dict.fromkeys(config.eval.protocols))
    return [one for one in every if not one.needs.method or one.name in parts.method.evals]


class _UsedLabels:
    """Labels of the training examples that evaluation uses, in random order; each is read once."""

    def __init__(self, config: ConfigDict, source: Source) -> None:
        used = sample_indices(source.size, config.eval.max_train, config.train.seed)
        rows = np.arange(source.size) if used is None else used
        self._rows = np.random.default_rng(0).permutation(rows)
        self._source = source
        self._labels: list[int] = []

    def __iter__(self) -> Iterator[int]:
        """Yields up to MAX_LABELS labels, without those of unlabelled examples."""
        for position, row in enumerate(self._rows[:MAX_LABELS]):
            if position == len(self._labels):
                self._labels.append(self._source.read_label(int(row)))
            if 0 <= self._labels[position] < len(self._source.classes):
                yield self._labels[position]

    def count(self, enough: int) -> dict[str, int] | None:
        """Counts the labels of the classes that occur; stops when every class has `enough` labels.

        Returns:
          {class: count}, or None if MAX_LABELS labels do not tell whether there are enough.
        """
        names = self._source.classes
        counts, short = [0] * len(names), len(names)
        for label in self:
            counts[label] += 1
            short -= counts[label] == enough
            if not short:
                break
        else:
            if len(self._rows) > MAX_LABELS:
                return None
        return {name: n for name, n in zip(names, counts, strict=True) if n}


def _single_class(labels: _UsedLabels, source: Source) -> str:
    first = next(iter(labels), None)
    if first is None or any(label != first for label in labels):
        return ""
    return (
        f"all training examples that evaluation uses are of the class {source.classes[first]!r}, "
        f"but classifiers need two classes. Add classes, raise eval.max_train, or {NO_EVALUATION}"
    )
