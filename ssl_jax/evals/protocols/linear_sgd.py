"""Protocol `linear_sgd`: linear classifiers trained by SGD on lightly augmented views."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from absl import logging

from ssl_jax import parallel
from ssl_jax.data import pipeline
from ssl_jax.data.source import subset
from ssl_jax.evals import extract, sgd, wording
from ssl_jax.evals.context import Context
from ssl_jax.evals.protocols import Measured, Needs
from ssl_jax.evals.results import sizes
from ssl_jax.inputs import Input
from ssl_jax.jobs.countdown import track

NEEDS = Needs(input="light")
ORDER = 60


def run(context: Context) -> Measured:
    """Trains classifiers on views of the training examples, and tests them."""
    options, labels = context.options, context.train_columns["label"]
    indices = context.train_columns["index"].astype(np.int64)
    batch_size = _batch_size(context)
    # With few examples on many devices, a batch holds some of them twice.
    chosen = indices if len(indices) >= batch_size else np.resize(indices, batch_size)
    held_out = sgd.hold_out(labels, context.seed)
    batches = extract.random_views(
        context.config, subset(context.source, chosen), _light(context), options.sgd_epochs
    )(batch_size)
    hand_made = extract.hand_made(context.config, context.input)
    encode = extract.feature_encoder(context.subject, hand_made)

    def named_features(weights: Any, views: Any) -> dict[str, jax.Array]:
        features = encode(weights, views)
        return {name: features[column] for name, column in context.columns.items()}

    classified = sgd.evaluate(
        named_features,
        context.subject.weights,
        track(
            _global_batches(context, batches, labels, held_out),
            _total_steps(context),
            "linear_sgd: {} steps",
            show=jax.process_index() == 0,
        ),
        context.sets,
        held_out=held_out,
        rates=options.sgd_lr,
        batch_size=batch_size,
        total_steps=_total_steps(context),
    )
    results = {
        name: sizes(context.sets[name]) | numbers for name, (numbers, _) in classified.items()
    }
    _warn_of_rates(results)
    return Measured(results, {name: labels for name, (_, labels) in classified.items()})


def _warn_of_rates(results: Mapping[str, Mapping[str, Any]]) -> None:
    """Logs a warning if best rates are at the end of the grid, and one if all rates diverged."""
    if jax.process_index():
        return
    edge = [
        f"{name}: {numbers['lr']:g}" for name, numbers in results.items() if numbers["lr_at_edge"]
    ]
    if edge:
        logging.warning(
            "linear_sgd: the best rate is the smallest or largest of eval.sgd_lr (%s). A rate "
            "beyond it may give a higher accuracy: add some with --eval.sgd_lr.",
            "; ".join(edge),
        )
    diverged = [n for n, r in results.items() if all(s is None for s in r["held_out_accuracy"])]
    if diverged:
        logging.warning(
            "linear_sgd: every rate of eval.sgd_lr diverged on the features of %s, so the accuracy "
            "means nothing. Check that the features are finite, or add smaller rates with "
            "--eval.sgd_lr.",
            ", ".join(diverged),
        )


def _light(context: Context) -> Input:
    assert context.input.light is not None, "NEEDS.input"
    return context.input.light()


def _batch_size(context: Context) -> int:
    wanted = min(context.options.sgd_batch_size, len(context.train_columns["index"]))
    return extract.round_up(wanted, context.mesh.size)


def _total_steps(context: Context) -> int:
    batch_size = _batch_size(context)
    count = max(len(context.train_columns["index"]), batch_size)
    return pipeline.total_steps(count, batch_size, context.options.sgd_epochs)


def _global_batches(
    context: Context, batches: Iterator[extract.Columns], labels: np.ndarray, held_out: np.ndarray
) -> Iterator[dict[str, jax.Array]]:
    """Yields global batches of views, labels as codes 0..k-1 and the mark of held-out rows."""
    classes, device = np.unique(labels), jax.jit(_light(context).device)
    for batch in batches:
        rows = {
            "label": np.searchsorted(classes, batch["label"]).astype(np.int32),
            "held_out": held_out[batch["index"] % len(held_out)],
        }
        views = device(parallel.to_global(batch, context.mesh))["views"]
        yield parallel.to_global(rows, context.mesh) | {"views": views}


def describe(context: Context, results: dict[str, Any]) -> dict[str, Any]:
    """Returns the protocol in words and values."""
    del results
    noun, options = context.noun, context.options
    return {
        "classifier": "linear, by SGD on the frozen encoder's features of random crops (SimCLR, "
        "arXiv 2002.05709, appendix B.6)",
        "optimizer": f"Nesterov momentum {sgd.MOMENTUM:g}, cosine to 0, no warm-up, no decay",
        "epochs": options.sgd_epochs,
        "steps": _total_steps(context),
        "batch_size": _batch_size(context),
        "lr": list(options.sgd_lr),
        "lr scale": f"times batch / {sgd.BATCH}",
        "lr choice": f"best accuracy on whole {noun}s of a {sgd.HELD_OUT}th of each class of "
        f"train, of classifiers that have not seen it; those tested have seen all train {noun}s",
        "views": _light(context).description,
        "features": "not standardised; the encoder's normalisation as in inference",
        "score": wording.score(noun),
        "seed": context.seed,
    } | context.describe_examples()


def heading(protocol: dict[str, Any]) -> str:
    """Returns the title of its column."""
    return f"linear by SGD, {protocol['epochs']:g} epochs"
