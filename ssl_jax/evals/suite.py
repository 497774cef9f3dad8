"""Every evaluation of every feature set, as numbers with their protocol."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from jax.sharding import NamedSharding

from ssl_jax.errors import BAD_DATA, Fault
from ssl_jax.evals import draws as sampling
from ssl_jax.evals import few_shot, knn, linear, protocols

FeatureSet = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
Evaluation = dict[str, Any]
Predictions = dict[str, np.ndarray]  # by feature set, [m], as train labels
Numbers = tuple[dict[str, Any], np.ndarray | None]  # of one feature set, with its predictions


def run(
    feature_sets: Mapping[str, FeatureSet],
    *,
    step: int,
    evals: Sequence[str] = ("knn", "linear"),
    k: int = 200,
    temperature: float = 0.1,
    labels_per_class: Sequence[int] = (0,),
    draws: int = 1,
    l2: tuple[float, ...] = linear.L2,
    shots: Sequence[int] = few_shot.SHOTS,
    few_shot_draws: int = 5,
    seed: int = 0,
    images: Mapping[str, Any] | None = None,
    sharding: NamedSharding | None = None,
) -> tuple[dict[str, Evaluation], dict[str, Predictions]]:
    """Evaluates every feature set by every protocol that needs nothing but features and labels.

    Args:
      feature_sets: name -> (train features [n, f], train labels [n], test features [m, f], test
        labels [m]). The names appear in the report: "simclr", "untrained encoder", "raw pixels".
      step: training step of the features.
      evals: which of "knn", "linear" and "few_shot".
      k: neighbours of kNN, whose bank is all train examples.
      temperature: of kNN's weights.
      labels_per_class: one linear evaluation for each; 0 takes all train labels.
      draws: of labels in linear evaluation, where they are drawn.
      l2: strengths to choose from in linear evaluation, relative to the mean loss.
      shots, few_shot_draws: of few-shot classification.
      seed: of draws and folds.
      images: which images, and how they were cut; goes into every protocol.
      sharding: over whose devices rows are divided.

    Returns:
      {file name without .json: evaluation}: "knn", "linear" (all labels), "linear_10" (10 labels
      per class), "few_shot"; each {"evaluation", "protocol", "step", "results": {feature set:
      numbers}}. And the predictions by the same names; few-shot classification keeps none.

    Raises:
      Fault: labels are missing or of a single class.
    """
    for _, train_y, _, test_y in feature_sets.values():
        check_labels(train_y, split="train")
        check_labels(test_y, split="test")
    found: dict[str, Evaluation] = {}
    predicted: dict[str, Predictions] = {}

    def add(name: str, kind: str, protocol: dict[str, Any], of: Callable[..., Numbers]) -> None:
        both = {key: of(*arrays) for key, arrays in feature_sets.items()}
        results = {key: sizes(feature_sets[key]) | numbers for key, (numbers, _) in both.items()}
        found[name] = evaluation(kind, protocol | dict(images or {}), step, results)
        predicted[name] = {key: column for key, (_, column) in both.items() if column is not None}

    if "knn" in evals:
        of: Callable[..., Numbers] = partial(_knn, k=k, temperature=temperature, sharding=sharding)
        add("knn", "knn", protocols.knn(k, temperature), of)
    for count in labels_per_class if "linear" in evals else ():
        of = partial(linear.sweep, l2=l2, labels_per_class=count, draws=draws, seed=seed)
        protocol = protocols.linear_sweep(count, draws, l2, seed)
        name = f"linear_{count}" if count else "linear"
        add(name, "linear", protocol, partial(of, sharding=sharding))
    if "few_shot" in evals:
        of = partial(_few_shot, shots=shots, draws=few_shot_draws, seed=seed, sharding=sharding)
        add("few_shot", "few_shot", protocols.ridge(few_shot_draws, seed), of)
    return found, predicted


def evaluation(kind: str, protocol: Any, step: int, results: dict[str, Any]) -> Evaluation:
    """The form of all evaluations."""
    return {"evaluation": kind, "protocol": dict(protocol), "step": step, "results": results}


def classifier(
    prediction: np.ndarray, label: np.ndarray, *, name: str, step: int, protocol: Mapping[str, Any]
) -> Evaluation:
    """The evaluation of a classifier of the run's own, as `run` returns evaluations.

    Args:
      prediction, label: int [m], of the test images.
      name: of the feature set.
      protocol: how it was trained.
    """
    check_labels(label, split="test")
    numbers = sampling.summary([float(np.mean(prediction == label))]) | {"n_test": len(label)}
    protocol = {**protocol, "score": protocols.SCORE}
    return evaluation("classifier", protocol, step, {name: numbers})


def check_labels(labels: np.ndarray, *, split: str) -> None:
    """Raises Fault unless every example has a label and there are two classes in train."""
    missing = int(np.sum(np.asarray(labels) < 0))
    if missing:
        raise Fault(
            f"evaluation: {missing} of the {len(labels)} {split} examples have no label; kNN and "
            "linear evaluation need all of them",
            BAD_DATA,
        )
    classes = np.unique(labels)
    if split == "train" and len(classes) < 2:
        raise Fault(
            f"evaluation: the train split holds only class {classes.tolist()}; kNN and linear "
            "evaluation need two classes",
            BAD_DATA,
        )


def sizes(arrays: FeatureSet) -> dict[str, int]:
    """How many examples, dimensions and classes an evaluation used."""
    train_x, train_y, test_x, _ = arrays
    return {
        "n_train": len(train_x),
        "n_test": len(test_x),
        "dimensions": train_x.shape[1],
        "classes": len(np.unique(train_y)),
    }


def _knn(
    train_x: np.ndarray, train_y: np.ndarray, test_x: np.ndarray, test_y: np.ndarray, **options: Any
) -> Numbers:
    predicted = knn.predict(train_x, train_y, test_x, **options)
    score = sampling.summary([float(np.mean(predicted == test_y))])
    return score | {"k": min(options["k"], len(train_x))}, predicted


def _few_shot(*arrays: np.ndarray, **options: Any) -> Numbers:
    return few_shot.evaluate(*arrays, **options), None
