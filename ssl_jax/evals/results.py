"""The form of evaluations, and the conditions on their labels."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ssl_jax.errors import BAD_DATA, Fault
from ssl_jax.evals import draws

FeatureSet = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""(train features [n, f], train labels [n], test features [m, f], test labels [m])."""
Evaluation = dict[str, Any]


def evaluation(
    kind: str, protocol: Mapping[str, Any], step: int, results: Mapping[str, Any]
) -> Evaluation:
    """Returns an evaluation in the form of all eval/*.json files.

    Args:
      kind: name of the protocol.
      protocol: how the numbers were made.
      step: training step of the features.
      results: numbers by feature set.
    """
    return {
        "evaluation": kind,
        "protocol": dict(protocol),
        "step": step,
        "results": dict(results),
    }


def classifier(
    prediction: np.ndarray,
    label: np.ndarray,
    *,
    name: str,
    step: int,
    protocol: Mapping[str, Any],
    score: str,
) -> Evaluation:
    """Returns the evaluation of a classifier that was trained with the encoder.

    Args:
      prediction, label: int [m], of the test examples.
      name: name of the feature set.
      step: training step of the classifier.
      protocol: how it was trained.
      score: what the accuracy is, in words.

    Raises:
      Fault: labels are missing.
    """
    check_labels(label, split="test")
    numbers = draws.summary([float(np.mean(prediction == label))]) | {"n_test": len(label)}
    return evaluation("classifier", {**protocol, "score": score}, step, {name: numbers})


def check_sets(sets: Mapping[str, FeatureSet]) -> None:
    """Checks the labels of every feature set; raises as `check_labels`."""
    for _, train_y, _, test_y in sets.values():
        check_labels(train_y, split="train")
        check_labels(test_y, split="test")


def check_labels(labels: np.ndarray, *, split: str) -> None:
    """Checks that every example has a label, and that "train" has two classes.

    Args:
      labels: int [n], -1 for a missing label.
      split: "train" or "test".

    Raises:
      Fault: a label is missing, or the train labels are of a single class.
    """
    missing = int(np.sum(np.asarray(labels) < 0))
    if missing:
        raise Fault(
            f"evaluation: {missing} of the {len(labels)} {split} examples have no label, but "
            "classifiers need all of them. Label them, or leave them out of the data",
            BAD_DATA,
        )
    classes = np.unique(labels)
    if split == "train" and len(classes) < 2:
        raise Fault(
            f"evaluation: the train split holds only class {classes.tolist()}, but classifiers "
            "need two classes",
            BAD_DATA,
        )


def sizes(arrays: FeatureSet) -> dict[str, int]:
    """Returns the numbers of examples, dimensions and classes of a feature set."""
    train_x, train_y, test_x, _ = arrays
    return {
        "n_train": len(train_x),
        "n_test": len(test_x),
        "dimensions": train_x.shape[1],
        "classes": len(np.unique(train_y)),
    }
