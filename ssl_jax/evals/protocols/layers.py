"""Protocol `layers`: linear evaluation of every block of the encoder."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax

from ssl_jax import parallel
from ssl_jax.data.labels import sample_indices
from ssl_jax.data.source import Source
from ssl_jax.evals import extract, linear
from ssl_jax.evals.context import Context
from ssl_jax.evals.protocols import Measured, Needs
from ssl_jax.evals.protocols.linear import describe_sweep, warn_if_unfinished
from ssl_jax.evals.results import check_labels
from ssl_jax.models import layers

NEEDS = Needs(train_features=False, layers=True)
ORDER = 20
AXIS = "layers"
LAYER_BYTES = 2**31  # largest size of all layers' features of one split on the host


def run(context: Context) -> Measured:
    """Evaluates the blocks of the trained encoder, and of the untrained one if it is a baseline."""
    results: dict[str, dict[str, Any]] = {}
    for name, column in context.columns.items():
        if column not in context.subject.weights:
            continue
        read = _reader(context, context.subject.weights[column])
        train, test = read(context.source, context.options.max_train), read(context.test, 0)
        check_labels(train["label"], split="train")
        check_labels(test["label"], split="test")
        order = layers.order([key for key in train if key not in ("label", "index")])
        sweeps: list[dict[str, Any]] = []
        for layer in order:
            numbers, _ = linear.sweep(
                train[layer],
                train["label"],
                test[layer],
                test["label"],
                seed=context.seed,
                sharding=context.sharding,
            )
            sweeps.append(numbers)
        results[name] = {
            "layers": order,
            "accuracy": [numbers["accuracy"] for numbers in sweeps],
            "n_train": len(train["label"]),
            "n_test": len(test["label"]),
            "iterations": [numbers["iterations"][0] for numbers in sweeps],
            "gradient_norm": [numbers["gradient_norm"][0] for numbers in sweeps],
            "converged": all(numbers["converged"] for numbers in sweeps),
        }
    warn_if_unfinished("layers", results)
    return Measured(results)


def _reader(context: Context, weights: Any) -> Callable[[Any, int], extract.Columns]:
    """Returns read(source, limit) -> all layers of at most `limit` examples.

    Fewer examples are read if their layers would need more than LAYER_BYTES; limit 0 reads all.
    """
    config, mesh, example_input = context.config, context.mesh, context.input
    layer_outputs, to_model = context.subject.layers, example_input.to_model
    assert layer_outputs is not None, "NEEDS.layers"

    @partial(jax.jit, out_shardings=parallel.replicated(mesh))
    def columns(weights: Any, batch: dict[str, Any]) -> dict[str, jax.Array]:
        return batch | layer_outputs(weights, to_model(batch.pop("input")))

    one = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((1, *x.shape), x.dtype), example_input.evaluated
    )
    shapes = jax.eval_shape(lambda w, x: layer_outputs(w, to_model(x)), weights, one)
    most = LAYER_BYTES // sum(4 * shape.size for shape in shapes.values())

    def read(source: Source, limit: int) -> extract.Columns:
        limit = min(limit or source.size, most)
        indices = sample_indices(source.size, limit, context.seed)
        return extract.map_source(config, mesh, partial(columns, weights), source, indices)

    return read


def describe(context: Context, results: dict[str, Any]) -> dict[str, Any]:
    """Returns the protocol in words and values."""
    sweep = describe_sweep(context, labels_per_class=0, repeats=1, l2=linear.L2)
    pooled = (
        "of every block of the encoder, from one forward: residual blocks by their mean over "
        "space, transformer blocks by the class token or the mean that the encoder takes"
    )
    used = next(iter(results.values()))["n_train"]
    return sweep | {"layers": pooled} | context.describe_examples(used)


def heading(protocol: dict[str, Any]) -> str:
    """Returns the title of its table."""
    del protocol
    return "linear by layers"
