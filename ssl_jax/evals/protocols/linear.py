"""Protocol `linear`: logistic regression, one evaluation for each number of labels per class."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
from absl import logging

from ssl_jax.evals import linear, logistic, wording
from ssl_jax.evals.context import Context
from ssl_jax.evals.protocols import CountLabels, Measured, Needs, Variants
from ssl_jax.evals.results import sizes

NEEDS = Needs(method=True)
ORDER = 30


def variants(options: Any) -> Variants:
    """Returns one file for each number of labels per class; 0 takes all labels."""
    return {
        f"linear_{count}" if count else "linear": {"labels_per_class": count}
        for count in options.labels_per_class
    }


def problem(options: Any, count: CountLabels) -> str:
    """Returns why the training examples have too few labels; "" if they have enough."""
    wanted = max(options.labels_per_class, default=0)
    counts = count(max(wanted, 2))
    if not counts:
        return ""
    rarest = min(counts, key=counts.__getitem__)
    if wanted > counts[rarest]:
        fewer = f"({counts[rarest]},), or " if counts[rarest] > 1 else ""
        return (
            f"eval.labels_per_class={tuple(options.labels_per_class)}, but the class {rarest!r} "
            f"has only {counts[rarest]} in the train split. Set "
            f"--config.eval.labels_per_class={fewer}(0,) for all labels"
        )
    if max(counts.values()) < 2:
        return "linear evaluation needs a class of two examples or more. Add labelled examples"
    return ""


def run(context: Context, *, labels_per_class: int) -> Measured:
    """Trains classifiers whose L2 strength is chosen inside the train labels, and tests them."""
    results, predictions = {}, {}
    for name, arrays in context.sets.items():
        numbers, predictions[name] = linear.sweep(
            *arrays,
            l2=linear.L2,
            labels_per_class=labels_per_class,
            draws=context.options.draws,
            seed=context.seed,
            sharding=context.sharding,
        )
        results[name] = sizes(arrays) | numbers
    warn_if_unfinished(f"linear_{labels_per_class}" if labels_per_class else "linear", results)
    return Measured(results, predictions)


def warn_if_unfinished(file: str, results: Mapping[str, Mapping[str, Any]]) -> None:
    """Logs one warning if fits did not converge.

    Args:
      file: name of the evaluation's file.
      results: numbers of `linear.sweep` by feature set; its lists may be of layers, not of draws.
    """
    unfinished = []
    for name, numbers in results.items():
        if not numbers["converged"]:
            norms = ["not finite" if n is None else f"{n:.1e}" for n in numbers["gradient_norm"]]
            pairs = zip(norms, numbers["iterations"], strict=True)
            unfinished.append(f"{name}: " + ", ".join(f"{n} after {i}" for n, i in pairs))
    if unfinished and jax.process_index() == 0:
        logging.warning(
            "%s: L-BFGS stopped above a gradient norm of %g (%s). These accuracies are of "
            "unfinished fits: the optimum may differ by some tenths of a per cent, less at a "
            "smaller norm. The solver stops after %d iterations, or earlier if only rounding is "
            "left; no option changes this. Look for features that are nearly constant, or not "
            "finite.",
            file,
            logistic.CONVERGED,
            "; ".join(unfinished),
            logistic.MAX_ITERATIONS,
        )


def describe(context: Context, results: dict[str, Any], *, labels_per_class: int) -> dict[str, Any]:
    """Returns the protocol in words and values."""
    del results
    protocol = describe_sweep(
        context, labels_per_class=labels_per_class, repeats=context.options.draws, l2=linear.L2
    )
    return protocol | context.describe_examples()


def describe_sweep(
    context: Context, *, labels_per_class: int, repeats: int, l2: Sequence[float]
) -> dict[str, Any]:
    """Returns the description of `linear.sweep`.

    Args:
      labels_per_class: labels drawn from every class; 0 takes all of them.
      repeats: number of draws.
      l2: strengths to choose from.
    """
    noun, count = context.noun, labels_per_class
    chosen = (
        "best accuracy, then least loss, on held-out train labels: "
        f"{linear.FOLDS} stratified folds up to {linear.ONE_FOLD_FROM:,} labels, one such fold "
        f"above, fitted to a gradient norm of {linear.PATH_TOLERANCE:g} in at most "
        f"{linear.PATH_ITERATIONS} iterations; then refitted on all of them"
    )
    several = count and repeats > 1
    return {
        "classifier": "multinomial logistic regression on frozen features, by L-BFGS to a "
        f"gradient norm of {logistic.TOLERANCE:g}, at most {logistic.MAX_ITERATIONS} iterations; "
        f"converged if it is at most {logistic.CONVERGED:g}",
        "gradient norm": "L2 norm of the gradient of the mean loss with penalty, in coordinates "
        "where the upper bound X^T X / 2n + l2 of the Hessian is the identity",
        "labels": f"{count} per class, drawn at random" if count else f"of all the train {noun}s",
        "labels_per_class": count,
        "draws": repeats if count else 1,
        "features": wording.standardised(noun),
        "l2": sorted(l2, reverse=True),
        "l2 scale": "relative to the mean loss, on the weights only",
        "l2 choice": chosen if len(l2) > 1 else "given",
        "score": wording.score(noun)
        + (", mean and standard deviation over draws" if several else ""),
        "seed": context.seed,
    } | ({"interval": wording.INTERVAL} if several else {})


def heading(protocol: dict[str, Any]) -> str:
    """Returns the title of its column."""
    count = protocol["labels_per_class"]
    return f"linear, {count} labels/class" if count else "linear, all labels"
