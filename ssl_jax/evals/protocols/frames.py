"""Protocol `frames`: linear classification of single frames, without pooling over time."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssl_jax import parallel
from ssl_jax.data.labels import sample_indices
from ssl_jax.data.source import Source
from ssl_jax.evals import extract, linear
from ssl_jax.evals.context import Context
from ssl_jax.evals.protocols import Measured, Needs
from ssl_jax.evals.protocols.linear import describe_sweep, warn_if_unfinished
from ssl_jax.evals.results import check_labels, sizes

NEEDS = Needs(train_features=False, frames=True)
ORDER = 35
VALID = " valid"  # ending of the column that marks the drawn frames which exist


def run(context: Context) -> Measured:
    """Trains classifiers on frames of the training examples, and tests them on test frames."""
    assert context.test is not None, "NEEDS.labels"
    read = _reader(context)
    splits = {
        "train": read(context.source, context.options.max_train),
        "test": read(context.test, 0),
    }
    for split, columns in splits.items():
        check_labels(columns["label"], split=split)
    results: dict[str, dict[str, Any]] = {}
    for name, column in context.columns.items():
        if column not in splits["train"]:
            continue  # the input has no such features of frames
        train, test = (_rows(columns, column) for columns in splits.values())
        arrays = (*train, *test)
        numbers, _ = linear.sweep(*arrays, seed=context.seed, sharding=context.sharding)
        results[name] = sizes(arrays) | numbers
    warn_if_unfinished("frames", results)
    return Measured(results)


def _rows(columns: extract.Columns, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the drawn frames [m, f] of a feature set, and the labels of their examples [m]."""
    frames, valid = columns[name], columns[name + VALID]
    labels = np.repeat(columns["label"][:, None], valid.shape[1], axis=1)
    return frames[valid], labels[valid]


def _reader(context: Context) -> Callable[[Source, int], extract.Columns]:
    """Returns read(source, limit) -> drawn frames [n, m, f] of at most `limit` examples; 0: all."""
    config, mesh, example_input = context.config, context.mesh, context.input
    encode, hand_made = context.subject.frames, example_input.frame_baselines
    assert encode is not None, "NEEDS.frames"
    learned = {column: column for column in context.subject.weights}

    @partial(jax.jit, static_argnums=2, out_shardings=parallel.replicated(mesh))
    def columns(weights: Any, batch: dict[str, Any], count: int) -> dict[str, jax.Array]:
        x = example_input.to_model(batch.pop("input"))
        sets = {name: encode(weights[name], x) for name in learned}
        if config.eval.baselines:
            sets |= {name: function(x) for name, function in hand_made.items()}
        drawn = {
            name: _draw(*pair, batch["index"], count, context.seed) for name, pair in sets.items()
        }
        frames = {name: values for name, (values, _) in drawn.items()}
        return batch | frames | {name + VALID: valid for name, (_, valid) in drawn.items()}

    def read(source: Source, limit: int) -> extract.Columns:
        indices = sample_indices(source.size, limit, context.seed)
        size = source.size if indices is None else len(indices)
        count = per_example(context.options.frames, size)

        def fn(batch: dict[str, Any]) -> dict[str, jax.Array]:
            return columns(context.subject.weights, batch, count)

        return extract.map_source(config, mesh, fn, source, indices)

    return read


def per_example(frames: int, examples: int) -> int:
    """Returns how many frames of each example are drawn, at most, for `frames` in all."""
    return -(-frames // examples)


def _draw(
    frames: jax.Array, valid: jax.Array, index: jax.Array, count: int, seed: int
) -> tuple[jax.Array, jax.Array]:
    """Draws `count` different valid frames of every example.

    Args:
      frames: [b, t, f].
      valid: bool [b, t].
      index: int [b], numbers of the examples, which determine the draws together with `seed`.
      count: number of frames; limited to t.
      seed: seed of the draws.

    Returns:
      (frames [b, count, f], bool [b, count]; False if an example has fewer valid frames).
    """
    root = jax.random.key(seed)
    count = min(count, frames.shape[1])

    def order(number: jax.Array, usable: jax.Array) -> jax.Array:
        u = jax.random.uniform(jax.random.fold_in(root, number), usable.shape)
        return jnp.argsort(jnp.where(usable, u, 2))[:count]

    chosen = jax.vmap(order)(index.astype(jnp.uint32), valid)
    drawn = jnp.take_along_axis(frames, chosen[..., None], 1)
    return drawn.astype(jnp.float32), jnp.take_along_axis(valid, chosen, 1)


def describe(context: Context, results: dict[str, Any]) -> dict[str, Any]:
    """Returns the protocol in words and values."""
    sweep = describe_sweep(context, labels_per_class=0, repeats=1, l2=linear.L2)
    frames, noun, own = context.options.frames, context.noun, next(iter(results.values()))
    used = min(context.options.max_train or context.source.size, context.source.size)
    return (
        sweep
        | {
            "frames": f"{own['n_train']:,} of train and {own['n_test']:,} of test: at most about "
            f"{frames:,} of each split, the same number of every {noun} with enough of them, drawn "
            "at random, none of padding",
            "labels": f"every frame has the label of its {noun}; no {noun} is in train and test, "
            f"but the folds of train divide {noun}s",
            "features": "of single frames, without augmentation; standardised by the mean and "
            "standard deviation over the train frames",
            "score": "top-1 accuracy on single test frames",
        }
        | context.describe_examples(used)
    )


def heading(protocol: dict[str, Any]) -> str:
    """Returns the title of its column."""
    del protocol
    return "linear, single frames"
