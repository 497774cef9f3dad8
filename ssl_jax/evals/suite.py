"""Every evaluation of every feature set, as numbers with their protocol."""

import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ssl_jax.errors import BAD_DATA, Fault
from ssl_jax.evals import knn, linear

FeatureSet = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
MAX_SAMPLE = 2000


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
    seed: int = 0,
    images: Mapping[str, Any] | None = None,
) -> dict[str, dict[str, Any]]:
    """Evaluates every feature set by every protocol.

    Args:
      feature_sets: name -> (train features [n, f], train labels [n], test features [m, f], test
        labels [m]). The names appear in the report: "simclr", "untrained encoder", "raw pixels".
      step: training step of the features.
      evals: which of "knn" and "linear".
      k: neighbours of kNN, whose bank is all train examples.
      temperature: of kNN's weights.
      labels_per_class: one linear evaluation for each; 0 takes all train labels.
      draws: of labels, where they are drawn.
      l2: strengths to choose from in linear evaluation, relative to the mean loss.
      seed: of draws and folds.
      images: which images, and how they were cut; goes into every protocol.

    Returns:
      {file name without .json: evaluation}: "knn", "linear" (all labels), "linear_10" (10 labels
      per class); each {"evaluation", "protocol", "step", "results": {feature set: numbers}}.

    Raises:
      Fault: labels are missing or of a single class.
    """
    for _, train_y, _, test_y in feature_sets.values():
        check_labels(train_y, split="train")
        check_labels(test_y, split="test")
    found: dict[str, dict[str, Any]] = {}
    if "knn" in evals:
        found["knn"] = {
            "evaluation": "knn",
            "protocol": _knn_protocol(k, temperature) | dict(images or {}),
            "step": step,
            "results": {
                name: _knn(arrays, k, temperature) for name, arrays in feature_sets.items()
            },
        }
    for count in labels_per_class if "linear" in evals else ():
        found[f"linear_{count}" if count else "linear"] = {
            "evaluation": "linear",
            "protocol": _linear_protocol(count, draws, l2, seed) | dict(images or {}),
            "step": step,
            "results": {
                name: _sizes(arrays)
                | linear.sweep(*arrays, l2=l2, labels_per_class=count, draws=draws, seed=seed)
                for name, arrays in feature_sets.items()
            },
        }
    return found


def classifier(
    prediction: np.ndarray, label: np.ndarray, *, name: str, step: int, protocol: Mapping[str, Any]
) -> dict[str, Any]:
    """The evaluation of a classifier of the run's own, as `run` returns evaluations.

    Args:
      prediction, label: int [m], of the test images.
      name: of the feature set.
      protocol: how it was trained.
    """
    check_labels(label, split="test")
    accuracy = float(np.mean(prediction == label))
    numbers = {"accuracy": accuracy, "std": 0.0, "draws": [accuracy], "n_test": len(label)}
    return {
        "evaluation": "classifier",
        "protocol": {**protocol, "score": "top-1 accuracy on the test images"},
        "step": step,
        "results": {name: numbers},
    }


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


def _sizes(arrays: FeatureSet) -> dict[str, int]:
    train_x, train_y, test_x, _ = arrays
    return {
        "n_train": len(train_x),
        "n_test": len(test_x),
        "dimensions": train_x.shape[1],
        "classes": len(np.unique(train_y)),
    }


def _knn(arrays: FeatureSet, k: int, temperature: float) -> dict[str, Any]:
    accuracy = knn.accuracy(*arrays, k=k, temperature=temperature)
    used = min(k, len(arrays[0]))
    return {"accuracy": accuracy, "std": 0.0, "draws": [accuracy], "k": used} | _sizes(arrays)


def _knn_protocol(k: int, temperature: float) -> dict[str, Any]:
    return {
        "classifier": "k nearest neighbours in cosine similarity, votes weighted by "
        "exp(similarity / temperature) (Wu et al. 2018, section 3.4)",
        "k": k,
        "temperature": temperature,
        "bank": "the train images, without augmentation",
        "score": "top-1 accuracy on the test images",
    }


def _linear_protocol(count: int, draws: int, l2: tuple[float, ...], seed: int) -> dict[str, Any]:
    chosen = (
        "best accuracy, then least loss, on held-out train labels: 5 stratified folds up to "
        f"{linear.ONE_FOLD_FROM:,} labels, one such fold above, fitted to a gradient norm of "
        f"{linear.PATH_TOLERANCE:g} in at most {linear.PATH_ITERATIONS} iterations; then refitted "
        "on all of them"
    )
    return {
        "classifier": "multinomial logistic regression on frozen features, by L-BFGS to a "
        f"gradient norm of {linear.TOLERANCE:g}, at most {linear.MAX_ITERATIONS} iterations",
        "labels": f"{count} per class, drawn at random" if count else "of all the train images",
        "labels_per_class": count,
        "draws": draws if count else 1,
        "features": "without augmentation; standardised by the mean and standard deviation over "
        "the train images",
        "l2": sorted(l2, reverse=True),
        "l2 scale": "relative to the mean loss, on the weights only",
        "l2 choice": chosen if len(l2) > 1 else "given",
        "score": "top-1 accuracy on the test images"
        + (", mean and standard deviation over draws" if count and draws > 1 else ""),
        "seed": seed,
    }


def write(workdir: str | os.PathLike[str], results: Mapping[str, dict[str, Any]]) -> None:
    """Writes workdir/eval/<name>.json for every result of `run`, whole or not at all."""
    folder = pathlib.Path(workdir, "eval")
    folder.mkdir(parents=True, exist_ok=True)
    for name, result in results.items():
        partial = folder / f".{name}.json.partial"
        partial.write_text(json.dumps(result, indent=2, allow_nan=False) + "\n")
        os.replace(partial, folder / f"{name}.json")


def write_sample(
    workdir: str | os.PathLike[str],
    *,
    features: np.ndarray,
    label: np.ndarray,
    image: np.ndarray,
    index: np.ndarray,
    classes: Sequence[str],
) -> None:
    """Writes workdir/eval/sample.npz for the report: test examples, at most MAX_SAMPLE of them.

    Args:
      features: float [n, f].
      label: int [n], -1 where there is none.
      image: uint8 [n, h, w, 3].
      index: int [n], of the examples in their source.
      classes: class names, empty without labels.
    """
    folder = pathlib.Path(workdir, "eval")
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / ".sample.partial.npz"  # savez appends .npz to other endings
    np.savez_compressed(
        partial,
        features=np.asarray(features[:MAX_SAMPLE], np.float32),
        label=np.asarray(label[:MAX_SAMPLE], np.int32),
        image=np.asarray(image[:MAX_SAMPLE], np.uint8),
        index=np.asarray(index[:MAX_SAMPLE], np.int64),
        classes=np.asarray(classes, str),
    )
    os.replace(partial, folder / "sample.npz")


def table(results: Mapping[str, dict[str, Any]]) -> str:
    """Text table of what `run` returned: feature sets by evaluations, accuracy in per cent."""
    names = sorted(results, key=_column)
    rows = [["features", *(_heading(results[name]) for name in names)]]
    sets = dict.fromkeys(s for name in names for s in results[name]["results"])
    for feature_set in sets:
        cells = [_cell(results[name]["results"].get(feature_set)) for name in names]
        rows.append([feature_set, *cells])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join([r[0].ljust(widths[0]), *map(str.rjust, r[1:], widths[1:])]) for r in rows]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _column(name: str) -> tuple[bool, float]:
    """Linear evaluations by their number of labels, all labels last; then others."""
    kind, _, count = name.partition("_")
    return kind != "linear", float(count or "inf")


def _heading(result: dict[str, Any]) -> str:
    protocol = result["protocol"]
    if result["evaluation"] == "knn":
        return f"{protocol['k']}-NN"
    if result["evaluation"] == "classifier":
        return "own classifier"
    count = protocol["labels_per_class"]
    return f"linear, {count} labels/class" if count else "linear, all labels"


def _cell(numbers: dict[str, Any] | None) -> str:
    if numbers is None:
        return "-"
    spread = f" ± {100 * numbers['std']:.2f}" if len(numbers["draws"]) > 1 else ""
    return f"{100 * numbers['accuracy']:.2f}{spread}"
