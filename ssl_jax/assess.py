"""Evaluation of a training state from its config: features, kNN, linear evaluation, files, table.

Beside the method's features stand two baselines under the same protocol: the same encoder
untrained, and raw pixels.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from ssl_jax import build, parallel
from ssl_jax.data import pipeline, sources
from ssl_jax.evals import features, suite

Columns = dict[str, np.ndarray]

TRAINED, UNTRAINED, RAW = "trained", "untrained encoder", "raw pixels"




def evaluate(config: ConfigDict, parts: build.Parts, state: Any, path: Path) -> None:
    """Writes eval/*.json and eval/sample.npz into the run at `path`, and prints the table.

    Without labelled test images only the sample is written: the map and the neighbours need none.
    """
    read = reader(config, parts, state)
    is_main = jax.process_index() == 0
    shown = parts.test or parts.source
    test = read(shown, 0 if parts.test else suite.MAX_SAMPLE)
    if is_main:
        write_sample(config, shown, test, path)
    if parts.test is None:
        print("no labelled test images: nothing to evaluate by", flush=True)
        return
    train = read(parts.source, config.eval.max_train)
    if not is_main:
        return
    sets = {config.method.name: TRAINED}
    if config.eval.baselines:
        sets |= {UNTRAINED: UNTRAINED, RAW: RAW}
    results = suite.run(
        {
            name: (train[column], train["label"], test[column], test["label"])
            for name, column in sets.items()
        },
        step=int(state.step),
        evals=parts.method.evals,
        k=config.eval.knn_k,
        temperature=config.eval.knn_temperature,
        labels_per_class=config.eval.labels_per_class,
        draws=config.eval.draws,
        seed=config.train.seed,
    )
    suite.write(path, results)
    print(suite.table(results), flush=True)


def reader(
    config: ConfigDict, parts: build.Parts, state: Any
) -> Callable[[sources.Source, int], Columns]:
    """Returns read(source, limit): every feature set of the source's images, decoded once.

    The columns are those of `features.extract`. `limit` > 0 takes that many images, drawn at
    random by the run's seed.
    """
    mesh = parts.mesh
    trees = {TRAINED: (state.params, state.extra)}
    if config.eval.baselines:
        fresh = parts.new_state()
        trees[UNTRAINED] = (fresh.params, fresh.extra)

    @partial(jax.jit, out_shardings=parallel.replicated(mesh))
    def columns(trees: Any, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        images = batch.pop("image").astype(jnp.float32) / 255
        found = {name: parts.method.features(*tree, images) for name, tree in trees.items()}
        if config.eval.baselines:
            found[RAW] = images.reshape(len(images), -1)
        return batch | found

    def read(source: sources.Source, limit: int) -> Columns:
        batches = eval_batches(
            config,
            source,
            indices=sample_indices(source.size, limit, config.train.seed),
            batch_size=-(-config.eval.batch_size // mesh.size) * mesh.size,
            host=(jax.process_index(), jax.process_count()),
        )
        return features.extract(
            lambda batch: columns(trees, parallel.to_global(batch, mesh)), batches
        )

    return read


def eval_batches(config: ConfigDict, source: sources.Source, **options: Any) -> Any:
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


def write_sample(config: ConfigDict, source: sources.Source, test: Columns, path: Path) -> None:
    """Keeps features, labels and pictures of some images for the report."""
    chosen = sample_indices(len(test["index"]), suite.MAX_SAMPLE, config.train.seed)
    rows = {name: test[name] if chosen is None else test[name][chosen] for name in test}
    batches = eval_batches(config, source, indices=rows["index"], batch_size=config.eval.batch_size)
    images = np.concatenate([batch["image"][batch["mask"]] for batch in batches])
    suite.write_sample(
        path,
        features=rows[TRAINED],
        label=rows["label"],
        image=images,
        index=rows["index"],
        classes=source.classes,
    )
