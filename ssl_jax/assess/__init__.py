"""Evaluation of an encoder from its config: features, protocols, files, tables.

Beside the encoder's features stand two baselines under the same protocol: the same encoder
untrained, and raw pixels.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from ssl_jax import parallel
from ssl_jax.assess import images, protocols, record, subjects
from ssl_jax.assess.classifier import evaluate_classifier
from ssl_jax.assess.record import reprint
from ssl_jax.assess.setup import Setup, test_images
from ssl_jax.errors import INTERRUPTED, STOPPED_EARLY, Fault
from ssl_jax.evals import UNLABELLED, files, suite, table
from ssl_jax.training.parts import Parts

__all__ = ["Setup", "evaluate", "evaluate_classifier", "evaluate_subject", "reprint"]


def evaluate(config: ConfigDict, parts: Parts, state: Any, path: Path) -> None:
    """Writes eval/ of the run at `path` that has just trained, and prints the tables.

    A method that generates images also has figures/samples.png.
    """
    record.write_generated(config, parts, state, path)
    subject = subjects.of_run(config, parts, state)
    evaluate_subject(Setup(config, parts.mesh, subject, parts.source, parts.test, path))


def evaluate_subject(setup: Setup) -> None:
    """Writes eval/*.json, sample.npz and predictions.npz, and prints the tables.

    Without labelled test images only what needs no label is made. A protocol that the labels do
    not allow costs none of the others.

    Raises:
      Fault: the first of those that a protocol met, after all have run.
    """
    config, is_main = setup.config, jax.process_index() == 0
    if is_main:
        record.begin(setup)
    labelled = [word for word in config.eval.protocols if word not in UNLABELLED]
    if setup.test is None and labelled:
        print("no labelled test images: nothing to evaluate by", flush=True)
    if setup.test is None and setup.transfer:
        return
    classify = setup.tells_classes and setup.test is not None and not setup.transfer
    read = images.reader(config, setup.subject, setup.mesh, classify=classify)
    test = read(setup.test or setup.source, 0 if setup.test else files.MAX_SAMPLE)
    if is_main and not setup.transfer:
        record.write_sample(setup, test)
    results: dict[str, Any] = {}
    faults: list[Fault] = []
    for made, predicted in _protocols(setup, read, test, faults):
        named = {setup.file_name(name): setup.marked(found) for name, found in made.items()}
        results |= made
        own = {name: of[setup.subject.name] for name, of in predicted.items() if of}
        if is_main:
            files.write(setup.path, named)
            if own and not setup.transfer:
                files.write_predictions(setup.path, test["label"], own)
    if is_main and results:
        print(table.text(results), flush=True)
    if faults:
        raise faults[0]
    if is_main:
        record.finish(setup)


def _protocols(
    setup: Setup, read: Any, test: images.Columns, faults: list[Fault]
) -> Iterator[protocols.Results]:
    """The results of one protocol after the other, and what went wrong with some."""
    words = setup.config.eval.protocols
    if "label_free" in words:
        yield protocols.without_labels(setup, test)
    if setup.test is None:
        return
    if images.PREDICTION in test:
        yield _own_classifier(setup, test)
    elif setup.subject.logits and not setup.transfer:
        print("no accuracy of the method's own classifier: it tells other classes", flush=True)
    for run in _labelled(setup, read, test):
        try:
            yield run()
        except Fault as fault:
            if fault.code in (STOPPED_EARLY, INTERRUPTED):  # of a signal, which means all of them
                raise
            faults.append(fault)


def _labelled(setup: Setup, read: Any, test: images.Columns) -> Iterator[Any]:
    """What to call for each protocol that needs labels."""
    options, subject = setup.config.eval, setup.subject
    # What a method has no use for is named in its `evals`.
    words = [w for w in options.protocols if w in subject.protocols or w not in ("knn", "linear")]
    if "layers" in words:
        yield lambda: protocols.by_layer(setup)
    if not {"knn", "linear", "few_shot", "linear_sgd"} & set(words):
        return
    train = read(setup.source, options.max_train)
    sets = {
        name: (train[column], train["label"], test[column], test["label"])
        for name, column in setup.sets.items()
    }
    counts = [("linear", n) for n in options.labels_per_class if "linear" in words]
    counts += [(word, 0) for word in ("knn", "few_shot") if word in words]
    for kind, count in counts:
        yield lambda kind=kind, count=count: suite.run(
            sets,
            step=subject.step,
            evals=(kind,),
            k=options.knn_k,
            temperature=options.knn_temperature,
            labels_per_class=(count,),
            draws=options.draws,
            few_shot_draws=options.few_shot_draws,
            seed=setup.config.train.seed,
            images=setup.images(len(train["label"])),
            sharding=parallel.rows(setup.mesh),
        )
    if "linear_sgd" in words:
        yield lambda: protocols.linear_sgd(setup, sets, train["index"].astype(np.int64))


def _own_classifier(setup: Setup, test: images.Columns) -> protocols.Results:
    made = suite.classifier(
        test[images.PREDICTION],
        test["label"],
        name=setup.subject.name,
        step=setup.subject.step,
        protocol={"classifier": "the method's own, trained with the encoder without labels"}
        | test_images(setup.config, setup.test or setup.source),
    )
    predicted = {setup.subject.name: test[images.PREDICTION]}
    return {"classifier": made}, {"classifier": predicted}
