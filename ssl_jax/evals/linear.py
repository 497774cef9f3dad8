"""Linear evaluation of frozen features: logistic regression, L2 strength chosen in train."""

import math
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding

from ssl_jax.data.labels import draw_labels
from ssl_jax.errors import BAD_DATA, Fault
from ssl_jax.evals import draws as sampling
from ssl_jax.evals import logistic, rows
from ssl_jax.jobs.countdown import track

L2 = tuple(10.0**e for e in range(2, -7, -1))  # relative to the mean loss, strong to weak
FOLDS = 5
ONE_FOLD_FROM = 5000  # above so many labels, one held-out fold measures accurately enough
# The choice of the L2 strength compares accuracies, which converge before the weights do. A norm of
# 1e-3 still moves single held-out examples, which can decide between two strengths.
PATH_TOLERANCE = 1e-4
PATH_ITERATIONS = 200


def sweep(
    train_x: np.ndarray,
    train_y: np.ndarray,
    test_x: np.ndarray,
    test_y: np.ndarray,
    *,
    l2: tuple[float, ...] = L2,
    labels_per_class: int = 0,
    draws: int = 1,
    seed: int = 0,
    sharding: NamedSharding | None = None,
) -> tuple[dict[str, Any], np.ndarray]:
    """Measures linear classifiers whose L2 strength is chosen with train labels only.

    Features are standardised by the mean and standard deviation of all train features, labelled
    or not. This equals a batch norm without scale and shift (He et al. 2022, arXiv 2111.06377,
    A.1). The L2 path runs from strong to weak with warm starts on stratified folds: all 5 folds up
    to 5,000 labels, one of 5 above. The best held-out accuracy wins; on a tie, the smallest
    held-out loss. The classifier is then fitted on all labels. Test labels are read once, for the
    final accuracy.

    Args:
      train_x: float [n, f].
      train_y: int [n], any integers.
      test_x: float [m, f].
      test_y: int [m]; a class that train lacks counts as missed.
      l2: strengths to choose from, relative to the mean loss. A single one is used as it is.
      labels_per_class: labels drawn from every class; 0 takes all of them.
      draws: number of draws of labels; all labels are taken once.
      seed: seed of the draws and folds, which are equal for every feature set.
      sharding: sharding of the rows; None for one device.

    Returns:
      (`draws.summary` of the accuracies with "n_labels", with lists of one value per draw "l2",
      "iterations" and "gradient_norm" of the final fit (see `logistic.fit`; None if it is not
      finite), and with "converged": whether all norms are at most `logistic.CONVERGED`; predictions
      of the first draw [m] in the dtype of `train_y`).

    Raises:
      Fault: a class has fewer labels than requested, or too few to hold one out.
    """
    classes, codes, target = sampling.codes(train_y, test_y)
    mean, deviation = sampling.moments(train_x)
    scaled_test = (test_x - mean) / deviation
    accuracies, chosen, predicted, used = [], [], [], np.arange(len(codes))
    iterations, norms = [], []
    count = draws if labels_per_class else 1
    for draw in track(range(count), count, "linear: {} draws", show=jax.process_index() == 0):
        rng = np.random.default_rng([seed, draw])
        if labels_per_class:
            used = draw_labels(codes, labels_per_class, rng=rng, names=classes)
        problem = logistic.prepare((train_x[used] - mean) / deviation, codes[used], sharding)
        path = sorted(l2, reverse=True)
        best, start = _select(problem, codes[used], len(classes), path, rng, sharding)
        every = rows.shard(np.ones(len(used), np.float32), sharding)
        fitted = logistic.solve(
            problem, every, best, start, logistic.TOLERANCE, logistic.MAX_ITERATIONS
        )
        predicted.append(fitted.predict(problem.apply(scaled_test, sharding))[: len(test_y)])
        accuracies.append(float(np.mean(predicted[-1] == target)))
        chosen.append(best)
        iterations.append(int(rows.gather(fitted.iterations)))
        norms.append(float(rows.gather(fitted.gradient_norm)))
    numbers = sampling.summary(accuracies) | {
        "n_labels": len(used),
        "l2": chosen,
        "iterations": iterations,
        "gradient_norm": [norm if math.isfinite(norm) else None for norm in norms],
        "converged": all(norm <= logistic.CONVERGED for norm in norms),
    }
    return numbers, classes[predicted[0]]


def _select(
    problem: logistic.Problem,
    codes: np.ndarray,
    num_classes: int,
    path: list[float],
    rng: np.random.Generator,
    sharding: NamedSharding | None,
) -> tuple[float, logistic.Start]:
    """Returns the L2 strength of the best held-out accuracy, and a solution at that strength.

    Ties are common with few labels. The loss decides them, because the strongest L2 would underfit.
    """
    start, n = problem.zeros(num_classes), len(codes)
    if len(path) == 1:
        return path[0], start
    if np.bincount(codes).max() < 2:
        raise Fault(
            "linear evaluation: with one label per class, none is left to choose the L2 strength; "
            "take 2 or more per class",
            BAD_DATA,
        )
    fold = sampling.stratified_folds(codes, FOLDS, rng)
    correct, loss = np.zeros(len(path)), np.zeros(len(path))
    for held_out in range(1 if n > ONE_FOLD_FROM else min(FOLDS, n)):
        out = fold == held_out
        weight = rows.shard((~out).astype(np.float32), sharding)
        params, solutions = start, []
        for i, l2 in enumerate(path):
            fitted = logistic.solve(problem, weight, l2, params, PATH_TOLERANCE, PATH_ITERATIONS)
            params = fitted.weight, fitted.bias
            solutions.append(params)
            correct[i] += (fitted.predict(problem.x)[:n] == codes)[out].sum()
            loss[i] += rows.gather(logistic.losses(problem.x, problem.y, *params))[:n][out].sum()
    best = max(range(len(path)), key=lambda i: (correct[i], -loss[i]))
    return path[best], solutions[best]
