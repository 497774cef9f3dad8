"""Reads the examples of a source once, and makes columns of features and labels."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from ssl_jax import components, parallel
from ssl_jax.data import pipeline
from ssl_jax.data.labels import sample_indices
from ssl_jax.data.source import Source, subset
from ssl_jax.evals import features
from ssl_jax.evals.subjects import RAW, TRAINED, Subject
from ssl_jax.inputs import Input
from ssl_jax.jobs.countdown import track

Columns = dict[str, np.ndarray]
Reader = Callable[[Source, int], Columns]
Tree = Any
PREDICTION = "prediction"  # column of the labels that the subject's own classifier predicts


def reader(
    config: ConfigDict, example_input: Input, subject: Subject, mesh: Mesh, *, classify: bool
) -> Reader:
    """Returns read(source, limit) -> every feature set of the source's examples.

    The columns are those of `features.collect`, and PREDICTION if `classify`. `limit` > 0 takes
    that many examples, drawn at random with the run's seed; 0 takes all.
    """
    encode = feature_encoder(subject, raw=raw_features(config, example_input))

    @partial(jax.jit, out_shardings=parallel.replicated(mesh))
    def columns(weights: Tree, batch: dict[str, Any]) -> dict[str, jax.Array]:
        x = example_input.to_model(batch.pop("input"))
        outputs = encode(weights, x)
        if classify and subject.logits:
            outputs[PREDICTION] = subject.logits(weights[TRAINED], x).argmax(-1)
        return batch | outputs

    def read(source: Source, limit: int) -> Columns:
        indices = sample_indices(source.size, limit, config.train.seed)
        return map_source(config, mesh, partial(columns, subject.weights), source, indices)

    return read


def raw_features(config: ConfigDict, example_input: Input) -> Callable[[Tree], jax.Array] | None:
    """Returns the function that makes the features of the raw baseline; None without baselines."""
    return (example_input.raw or flattened) if config.eval.baselines else None


def feature_encoder(
    subject: Subject, *, raw: Callable[[Tree], jax.Array] | None
) -> Callable[[Tree, Tree], dict[str, jax.Array]]:
    """Returns (weights, x) -> every feature set [n, f]; `raw` makes those of the raw baseline."""

    def encode(weights: Tree, x: Tree) -> dict[str, jax.Array]:
        outputs = {name: subject.features(tree, x) for name, tree in weights.items()}
        return outputs | ({RAW: raw(x)} if raw else {})

    return encode


def flattened(x: Tree) -> jax.Array:
    """Returns the arrays of a batch [n, ...] side by side as float32 [n, f]."""
    rows = [leaf.reshape(len(leaf), -1).astype(jnp.float32) for leaf in jax.tree.leaves(x)]
    return jnp.concatenate(rows, axis=1)


def map_source(
    config: ConfigDict,
    mesh: Mesh,
    fn: Callable[..., Mapping[str, jax.Array]],
    source: Source,
    indices: np.ndarray | None = None,
) -> Columns:
    """Returns the columns that `fn` makes of the source's examples, from all processes' batches.

    Args:
      config: config of the evaluation.
      mesh: devices over which batches are divided.
      fn: global batch of `pipeline.eval_batches` -> columns, replicated; see `features.collect`.
      source: the examples.
      indices: int [n], the examples to read; None reads all.
    """
    batch_size = round_up(config.eval.batch_size, mesh.size)
    batches = components.eval_batches(
        config,
        source,
        indices=indices,
        batch_size=batch_size,
        host=(jax.process_index(), jax.process_count()),
    )
    count = -(-(source.size if indices is None else len(indices)) // batch_size)
    tracked = track(batches, count, "features: {} batches", show=jax.process_index() == 0)
    return features.collect(lambda batch: fn(parallel.to_global(batch, mesh)), tracked)


def view_pairs(
    config: ConfigDict,
    example_input: Input,
    subject: Subject,
    mesh: Mesh,
    source: Source,
    *,
    limit: int,
) -> Columns:
    """Returns features [n, 2, f] of two of the run's random views of at most `limit` examples."""
    encode = feature_encoder(subject, raw=raw_features(config, example_input))
    assert example_input.pair is not None, "the caller asks first whether the input has pairs"
    chosen = sample_indices(source.size, limit, config.train.seed)
    chosen = np.arange(source.size) if chosen is None else chosen
    batch_size = round_up(config.eval.batch_size, mesh.size)
    # Repeated examples fill the last batch; the mask drops them.
    filled = np.resize(chosen, round_up(len(chosen), batch_size))
    pair = example_input.pair()
    batches = random_views(config, subset(source, filled), pair, 1)(batch_size)

    @partial(jax.jit, out_shardings=parallel.replicated(mesh))
    def columns(weights: Tree, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        views = pair.device(batch)["views"]
        outputs = encode(weights, views.reshape(-1, *views.shape[2:]))
        pairs = {name: x.reshape(len(views), 2, -1) for name, x in outputs.items()}
        return pairs | {"mask": batch["index"] < len(chosen)}

    with_weights = partial(columns, subject.weights)
    return features.collect(lambda batch: with_weights(parallel.to_global(batch, mesh)), batches)


def random_views(
    config: ConfigDict, source: Source, example_input: Input, epochs: float
) -> Callable[[int], Iterator[Columns]]:
    """Returns (batch size) -> this process's rows of `epochs` epochs of random views."""

    def batches(batch_size: int) -> Iterator[Columns]:
        return components.train_batches(
            config,
            source,
            start_step=0,
            num_steps=pipeline.total_steps(source.size, batch_size, epochs),
            batch_size=batch_size,
            example_input=example_input,
        )

    return batches


def round_up(count: int, unit: int) -> int:
    """Returns the smallest multiple of `unit` that is at least `count`."""
    return -(-count // unit) * unit
