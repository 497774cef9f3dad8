"""Writes what reports show besides numbers: a sample of examples, and generated pictures."""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from ssl_jax import components, parallel
from ssl_jax.evals import extract, files, saliency
from ssl_jax.evals.context import Context
from ssl_jax.evals.subjects import TRAINED
from ssl_jax.report.figures import image_grids
from ssl_jax.training.parts import Parts

OCCLUDED = 8  # examples whose saliency is measured


def write_generated(config: ConfigDict, parts: Parts, state: Any, path: Path) -> None:
    """Writes figures/samples.png if the method generates pictures."""
    samples = parts.method.samples
    if samples is None:
        return
    generate = jax.jit(samples, static_argnums=3, out_shardings=parallel.replicated(parts.mesh))
    key = jax.random.key(config.train.seed)
    pictures = generate(state.params, state.extra, key, image_grids.GENERATED)
    if jax.process_index() == 0:
        image_grids.draw_generated(np.asarray(pictures), path / "figures" / "samples.png")


def write_sample(context: Context, test: extract.Columns) -> None:
    """Writes eval/sample.npz: features, labels, pictures and saliency of some examples.

    Examples are drawn at random, because folders list them class by class.

    Args:
      context: the evaluation.
      test: columns of the examples to choose from.
    """
    config, source, subject = context.config, context.test or context.source, context.subject
    order = np.random.Generator(np.random.PCG64(config.train.seed)).permutation(len(test["index"]))
    rows = {name: column[order[: files.MAX_SAMPLE]] for name, column in test.items()}
    batches = components.eval_batches(
        config, source, indices=rows["index"], batch_size=config.eval.batch_size
    )
    valid = [jax.tree.map(lambda x, m=batch["mask"]: x[m], batch["input"]) for batch in batches]
    arrays = jax.tree.map(lambda *parts: np.concatenate(parts), *valid)
    count, picture = len(rows["index"]), context.input.picture
    pictures = occlusion = None
    if picture:
        pictures = np.stack(
            [picture(jax.tree.map(lambda x, i=i: x[i], arrays)) for i in range(count)]
        )
        # Occlusion covers parts of one array [h, w, c].
        if isinstance(arrays, np.ndarray) and arrays.ndim == 4:
            # Only this process runs the lines below, so they use only its own devices.
            weights = jax.device_get(subject.weights[TRAINED])
            encode = partial(jax.jit(subject.features), weights)
            seen = jax.device_get(context.input.to_model(jnp.asarray(arrays[:OCCLUDED])))
            occlusion = saliency.occlusion(encode, seen)
    files.write_sample(
        context.path,
        features=rows[TRAINED],
        label=rows["label"],
        pictures=pictures,
        index=rows["index"],
        classes=source.classes,
        saliency=occlusion,
    )
