"""Runs the protocols of a config on a subject, writes their files and prints their tables.

Two baselines are measured by the same protocols: the same encoder untrained, and the evaluation
arrays themselves.
"""

from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from ssl_jax import config as configuration
from ssl_jax.errors import BAD_CONFIG, INTERRUPTED, STOPPED_EARLY, Fault
from ssl_jax.evals import done, extract, files, protocols, results, sample, subjects, table, wording
from ssl_jax.evals.context import Context, describe_test
from ssl_jax.evals.protocols import Measured, Protocol
from ssl_jax.inputs import Input
from ssl_jax.jobs import bootstrap
from ssl_jax.training.parts import Parts

OWN_CLASSIFIER = "classifier"  # evaluation of a classifier that the method learns without labels
INPUT_PARTS = {  # optional fields of `Input`
    "pair": "pairs of random views",
    "light": "lightly augmented views",
}


def evaluate_run(config: ConfigDict, parts: Parts, state: Any, path: Path) -> None:
    """Evaluates the state of a run that has just trained: writes eval/ and prints the tables.

    Also writes the method's pictures, if it has some.

    Raises:
      Fault: as `evaluate`.
    """
    subject = subjects.subject_from_run(config, parts, state)
    context = Context(
        config,
        parts.mesh,
        subject,
        parts.source,
        parts.test,
        path,
        unlabelled_test=parts.unlabelled_test,
    )
    sample.write_pictures(context, parts.method, state)
    evaluate(context)


def evaluate(context: Context) -> None:
    """Writes eval/*.json, sample.npz and predictions.npz, and prints the tables.

    Without a labelled test split, only protocols that need no labels run; on other data, only if
    such examples are useful without labels, see `Source.unlabelled_test`. A protocol that fails
    does not stop the others. Files of the subject's own data stay unchanged when other data or
    another label field are evaluated; sample.npz and predictions.npz belong to the own data.

    Raises:
      Fault: the first fault of a protocol, after all protocols ran.
    """
    is_main = jax.process_index() == 0
    chosen = [protocols.get(name) for name in dict.fromkeys(context.options.protocols)]
    chosen.sort(key=lambda protocol: (protocol.order, protocol.name))
    if is_main:
        done.begin(context)
    useful = context.test is not None or not context.transfer or context.source.unlabelled_test
    others = [p.name for p in chosen if not p.needs.labels and useful]
    skipped = [p.name for p in chosen if context.test is None and p.name not in others]
    if skipped:
        message = f"no labelled test {context.noun}s, so {', '.join(others) or 'nothing'}"
        bootstrap.print_once(f"{message} is measured (skipped: {', '.join(skipped)})")
    if not useful:
        if not chosen:
            bootstrap.print_once("nothing was evaluated: eval.protocols is empty")
        return
    if context.source.size:
        bootstrap.print_once(f"computing the features of {context.noun}s for evaluation ...")
        test = context.test_columns
        if is_main and context.is_own:
            sample.write_sample(context, test)

    finished: dict[str, results.Evaluation] = {}
    faults: list[Fault] = []
    _run([p for p in chosen if not p.needs.labels], context, finished, faults)
    if context.test is not None:
        _evaluate_own_classifier(context, finished)
        _run([p for p in chosen if p.needs.labels], context, finished, faults)
    if is_main and finished:
        print(table.text(finished), flush=True)
    if faults:
        raise faults[0]
    if not finished and not skipped:
        bootstrap.print_once("nothing was evaluated: none of eval.protocols applies to this run")
    if is_main:
        done.finish(context)


def needs_examples(config: ConfigDict) -> bool:
    """Tells whether a protocol of the config measures examples, not only the vectors of words."""
    return not all(protocols.get(name).needs.vectors for name in config.eval.protocols)


def reprint(config: ConfigDict, path: Path, step: int) -> bool:
    """Prints the tables again from the files of an earlier evaluation.

    Args:
      config: config of the run.
      path: workdir of the run.
      step: step of the checkpoint.

    Returns:
      False, and prints nothing, unless the protocols of the config were all finished for this step
      with these settings, and the files are intact.
    """
    if not done.is_done(config, path, step):
        return False
    names = [
        name
        for protocol in map(protocols.get, config.eval.protocols)
        for name in protocol.files(config.eval)
    ]
    evaluations = files.read(path, [*names, OWN_CLASSIFIER])
    try:
        text = table.text(evaluations)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):  # damaged numbers
        return False
    bootstrap.print_once(f"step {step} was evaluated before; these numbers are from eval/:")
    bootstrap.print_once(text)
    return True


def _run(
    chosen: list[Protocol],
    context: Context,
    finished: dict[str, results.Evaluation],
    faults: list[Fault],
) -> None:
    """Runs protocols one after the other. Adds evaluations to `finished` and faults to `faults`."""
    for protocol in chosen:
        if protocol.needs.method and protocol.name not in context.subject.protocols:
            continue
        if reason := protocol.absent(context.options):
            bootstrap.print_once(f"skipped {protocol.name}: {reason}")
            continue
        if reason := _obstacle(protocol, context):
            if is_default(protocol):
                bootstrap.print_once(f"skipped {protocol.name}: {reason}")
            else:
                message = f"{reason}: leave {protocol.name!r} out of eval.protocols"
                faults.append(Fault(message, BAD_CONFIG))
            continue
        if protocol.needs.train_features:
            _ = context.sets  # data that cannot be read stop all protocols
        for file, variant in protocol.files(context.options).items():
            before = context.path / "eval" / f"{context.file_name(file)}.json"
            replaced = f", replaces {before.parent.name}/{before.name}"
            bootstrap.print_once(f"evaluating: {file}{replaced if before.exists() else ''}")
            try:
                if protocol.needs.train_features:
                    results.check_sets(context.sets)
                measured = protocol.run(context, **variant)
                description = protocol.describe(context, measured.results, **variant)
            except Fault as fault:
                if fault.code in (STOPPED_EARLY, INTERRUPTED):  # a signal stops all protocols
                    raise
                faults.append(fault)
                continue
            step = context.subject.step
            finished[file] = results.evaluation(protocol.name, description, step, measured.results)
            _write(context, file, finished[file], measured)


def is_default(protocol: Protocol) -> bool:
    """Tells whether runs use the protocol by default, so that it may be skipped."""
    return protocol.name in configuration.default_config().eval.protocols


def missing_part(protocol: Protocol, example_input: Input) -> str:
    """Returns which part of the input a protocol lacks, in words; "" if it lacks none."""
    part = protocol.needs.input
    missing = part and getattr(example_input, part) is None
    return f"this modality has no {INPUT_PARTS[part]}" if missing else ""


def _obstacle(protocol: Protocol, context: Context) -> str:
    """Returns why a protocol cannot run on this subject and these data; "" if it can."""
    if missing := missing_part(protocol, context.input):
        return missing
    if protocol.needs.vectors and context.subject.vectors is None:
        return f"{context.subject.name} has no word vectors"
    if protocol.needs.layers and context.subject.layers is None:
        return f"{context.subject.name} has no encoder"
    if protocol.needs.frames and context.subject.frames is None:
        return f"the encoder of {context.subject.name} has no features of single frames"
    if protocol.needs.towers and not context.subject.towers:
        return f"{context.subject.name} does not embed parts of an example in one space"
    return ""


def _evaluate_own_classifier(context: Context, finished: dict[str, results.Evaluation]) -> None:
    subject, test = context.subject, context.test_columns
    if extract.PREDICTION not in test:
        if subject.logits and context.is_own:
            message = "no accuracy of the method's own classifier: it tells other classes"
            bootstrap.print_once(message)
        return
    finished[OWN_CLASSIFIER] = results.classifier(
        test[extract.PREDICTION],
        test["label"],
        name=subject.name,
        step=subject.step,
        protocol={"classifier": "the method's own, trained with the encoder without labels"}
        | describe_test(context.config, context.input, context.test or context.source),
        score=wording.score(context.noun),
    )
    predictions = {subject.name: test[extract.PREDICTION]}
    _write(context, OWN_CLASSIFIER, finished[OWN_CLASSIFIER], Measured({}, predictions))


def _write(context: Context, name: str, evaluation: results.Evaluation, measured: Measured) -> None:
    if jax.process_index():
        return
    files.write(context.path, {context.file_name(name): context.marked(evaluation)})
    own = measured.predictions.get(context.subject.name)
    if own is not None and context.is_own:
        files.write_predictions(context.path, context.test_columns["label"], {name: own})
