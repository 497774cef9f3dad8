"""From the images of a source to columns of features, each image decoded once."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from ssl_jax import build, parallel
from ssl_jax.assess.subjects import RAW, TRAINED, Subject
from ssl_jax.data import pipeline, sources
from ssl_jax.evals import features
from ssl_jax.inputs.image.views import View, split

Columns = dict[str, np.ndarray]
Tree = Any
PREDICTION = "prediction"  # of the subject's own classifier


def reader(
    config: ConfigDict, subject: Subject, mesh: Mesh, *, classify: bool
) -> Callable[[sources.Source, int], Columns]:
    """Returns read(source, limit): every feature set of the source's images.

    The columns are those of `features.extract`, and PREDICTION if `classify`. `limit` > 0 takes
    that many images, drawn at random by the run's seed.
    """
    encode = encoder(subject, raw=config.eval.baselines)

    @partial(jax.jit, out_shardings=parallel.replicated(mesh))
    def columns(weights: Tree, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        images = batch.pop("image").astype(jnp.float32) / 255
        found = encode(weights, images)
        if classify and subject.logits:
            found[PREDICTION] = subject.logits(weights[TRAINED], images).argmax(-1)
        return batch | found

    def read(source: sources.Source, limit: int) -> Columns:
        indices = sample_indices(source.size, limit, config.train.seed)
        return extract(config, mesh, partial(columns, subject.weights), source, indices)

    return read


def encoder(subject: Subject, *, raw: bool) -> Callable[[Tree, jax.Array], dict[str, jax.Array]]:
    """Returns (weights, images [n, h, w, 3]) -> every feature set [n, f], raw pixels if `raw`."""

    def encode(weights: Tree, images: jax.Array) -> dict[str, jax.Array]:
        found = {name: subject.features(tree, images) for name, tree in weights.items()}
        return found | ({RAW: images.reshape(len(images), -1)} if raw else {})

    return encode


def extract(
    config: ConfigDict,
    mesh: Mesh,
    fn: Callable[..., Mapping[str, jax.Array]],
    source: sources.Source,
    indices: np.ndarray | None = None,
) -> Columns:
    """The columns that `fn` makes of the source's images, of all devices' batches."""
    batches = eval_batches(
        config,
        source,
        indices=indices,
        batch_size=whole(config.eval.batch_size, mesh),
        host=_host(),
    )
    return features.extract(lambda batch: fn(parallel.to_global(batch, mesh)), batches)


def pairs(
    config: ConfigDict, subject: Subject, mesh: Mesh, source: sources.Source, limit: int
) -> Columns:
    """Features [n, 2, f] of two of the run's random views of at most `limit` images."""
    encode = encoder(subject, raw=config.eval.baselines)
    full = split(build.views(config))[0]
    chosen = sample_indices(source.size, limit, config.train.seed)
    chosen = np.arange(source.size) if chosen is None else chosen
    batch_size = whole(config.eval.batch_size, mesh)
    # Whole batches: images that come again fill the last one up, and are dropped.
    filled = np.resize(chosen, whole(len(chosen), batch_size))
    batches = random_views(config, sources.subset(source, filled), (full[0], full[:2][-1]), 1)

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
    config: ConfigDict, source: sources.Source, views: tuple[View, ...], epochs: float
) -> Callable[[int], Iterator[Columns]]:
    """Returns (batch_size) -> this host's rows of augmented batches, for so many epochs."""

    def batches(batch_size: int) -> Iterator[Columns]:
        return pipeline.train_batches(
            source,
            views=views,
            batch_size=batch_size,
            seed=config.train.seed,
            start_step=0,
            num_steps=pipeline.total_steps(source.size, batch_size, epochs),
            placement="host",
            host=_host(),
            on_bad_image=config.data.on_bad_image,
            max_bad=config.data.max_bad,
        )

    return batches


def eval_batches(
    config: ConfigDict, source: sources.Source, **options: Any
) -> Iterable[dict[str, np.ndarray]]:
    """The source's images as evaluation sees them: resized, centre-cropped, not augmented."""
    return pipeline.eval_batches(
        source,
        size=config.augment.size,
        crop=config.eval.crop,
        on_bad_image=config.data.on_bad_image,
        max_bad=config.data.max_bad,
        **options,
    )


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
