"""From the images of a source to columns of features, each image decoded once."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from ssl_jax import components, parallel
from ssl_jax.assess.subjects import RAW, TRAINED, Subject
from ssl_jax.data import pipeline
from ssl_jax.data.source import Source, subset
from ssl_jax.evals import features
from ssl_jax.inputs import Input

Columns = dict[str, np.ndarray]
Tree = Any
PREDICTION = "prediction"  # of the subject's own classifier


def reader(
    config: ConfigDict, subject: Subject, mesh: Mesh, *, classify: bool
) -> Callable[[Source, int], Columns]:
    """Returns read(source, limit): every feature set of the source's images.

    The columns are those of `features.extract`, and PREDICTION if `classify`. `limit` > 0 takes
    that many images, drawn at random by the run's seed.
    """
    encode = encoder(subject, raw=config.eval.baselines)
    to_model = components.make_input(config).to_model

    @partial(jax.jit, out_shardings=parallel.replicated(mesh))
    def columns(weights: Tree, batch: dict[str, Any]) -> dict[str, jax.Array]:
        x = to_model(batch.pop("input"))
        found = encode(weights, x)
        if classify and subject.logits:
            found[PREDICTION] = subject.logits(weights[TRAINED], x).argmax(-1)
        return batch | found

    def read(source: Source, limit: int) -> Columns:
        indices = sample_indices(source.size, limit, config.train.seed)
        return extract(config, mesh, partial(columns, subject.weights), source, indices)

    return read


def encoder(subject: Subject, *, raw: bool) -> Callable[[Tree, Tree], dict[str, jax.Array]]:
    """Returns (weights, x) -> every feature set [n, f]; `raw` adds x itself, flattened."""

    def encode(weights: Tree, x: Tree) -> dict[str, jax.Array]:
        found = {name: subject.features(tree, x) for name, tree in weights.items()}
        return found | ({RAW: flattened(x)} if raw else {})

    return encode


def flattened(x: Tree) -> jax.Array:
    """Returns the arrays of a batch [n, ...] side by side as float32 [n, f]."""
    rows = [leaf.reshape(len(leaf), -1).astype(jnp.float32) for leaf in jax.tree.leaves(x)]
    return jnp.concatenate(rows, axis=1)


def extract(
    config: ConfigDict,
    mesh: Mesh,
    fn: Callable[..., Mapping[str, jax.Array]],
    source: Source,
    indices: np.ndarray | None = None,
) -> Columns:
    """The columns that `fn` makes of the source's images, of all devices' batches."""
    batches = components.eval_batches(
        config,
        source,
        indices=indices,
        batch_size=whole(config.eval.batch_size, mesh),
        host=_host(),
    )
    return features.extract(lambda batch: fn(parallel.to_global(batch, mesh)), batches)


def pairs(config: ConfigDict, subject: Subject, mesh: Mesh, source: Source, limit: int) -> Columns:
    """Features [n, 2, f] of two of the run's random views of at most `limit` images."""
    encode = encoder(subject, raw=config.eval.baselines)
    pair = components.make_input(config).pair
    assert pair is not None, "the caller asks first whether the input has pairs"
    chosen = sample_indices(source.size, limit, config.train.seed)
    chosen = np.arange(source.size) if chosen is None else chosen
    batch_size = whole(config.eval.batch_size, mesh)
    # Whole batches: images that come again fill the last one up, and are dropped.
    filled = np.resize(chosen, whole(len(chosen), batch_size))
    batches = random_views(config, subset(source, filled), pair(), 1)

    @partial(jax.jit, out_shardings=parallel.replicated(mesh))
    def columns(weights: Tree, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        views = batch["views"]
        found = encode(weights, views.reshape(-1, *views.shape[2:]))
        both = {name: x.reshape(len(views), 2, -1) for name, x in found.items()}
        return both | {"mask": batch["index"] < len(chosen)}

    with_weights = partial(columns, subject.weights)
    rows = batches(batch_size)
    return features.extract(lambda batch: with_weights(parallel.to_global(batch, mesh)), rows)


def random_views(
    config: ConfigDict, source: Source, example_input: Input, epochs: float
) -> Callable[[int], Iterator[Columns]]:
    """Returns (batch_size) -> this host's rows of augmented batches, for so many epochs."""

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


def sample_indices(size: int, limit: int, seed: int) -> np.ndarray | None:
    """`limit` of `size` indices, drawn by `seed` and sorted; None for all."""
    if not 0 < limit < size:
        return None
    return np.sort(np.random.Generator(np.random.PCG64(seed)).permutation(size)[:limit])


def whole(count: int, mesh: Mesh | int) -> int:
    """The smallest multiple of the devices (or of a number) that is no less than `count`."""
    unit = mesh if isinstance(mesh, int) else mesh.size
    return -(-count // unit) * unit


def _host() -> tuple[int, int]:
    return jax.process_index(), jax.process_count()
