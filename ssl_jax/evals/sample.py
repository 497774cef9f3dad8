"""Writes what reports show besides numbers: a sample of examples, and the method's pictures."""

import json
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssl_jax import components, parallel
from ssl_jax.evals import extract, files, saliency
from ssl_jax.evals.context import Context
from ssl_jax.evals.subjects import TRAINED
from ssl_jax.jobs import files as safe_files
from ssl_jax.methods import Method
from ssl_jax.report.figures import image_grids

OCCLUDED = 8  # examples whose saliency is measured
SHOWN = 8  # examples in the method's pictures


def write_pictures(context: Context, method: Method, state: Any) -> None:
    """Writes figures/NAME.png for each of the method's pictures, and figures/pictures.json.

    The JSON file holds {name: {"title", "caption"}} for the report.

    Args:
      context: the evaluation.
      method: the method, which draws its pictures of a few evaluation images.
      state: its training state, on the devices of all processes.
    """
    if not method.pictures:
        return
    arrays = _inputs(context, _random_rows(context, (context.test or context.source).size)[:SHOWN])
    images = jax.device_get(context.input.to_model(jax.tree.map(jnp.asarray, arrays)))
    key = jax.random.key(context.seed)
    figures = safe_files.inside(context.path, "figures")
    for picture in method.pictures:
        draw = jax.jit(picture.draw, out_shardings=parallel.replicated(context.mesh))
        grid = draw(state.params, state.extra, images, key)
        if jax.process_index() == 0:
            path = figures / f"{picture.name}.png"
            image_grids.draw_grid(np.asarray(grid), path, picture.columns)
    if jax.process_index() == 0:
        texts = {p.name: {"title": p.title, "caption": p.caption} for p in method.pictures}
        safe_files.write(figures / "pictures.json", json.dumps(texts, indent=2))


def write_sample(context: Context, test: extract.Columns) -> None:
    """Writes eval/sample.npz: features, labels, pictures and saliency of some examples.

    Examples are drawn at random, because folders list them class by class.

    Args:
      context: the evaluation.
      test: columns of the examples to choose from.
    """
    source, subject = context.test or context.source, context.subject
    order = _random_rows(context, len(test["index"]))
    rows = {name: column[order[: files.MAX_SAMPLE]] for name, column in test.items()}
    arrays = _inputs(context, rows["index"])
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


def _random_rows(context: Context, count: int) -> np.ndarray:
    """Returns 0 to count - 1 in an order drawn by the seed."""
    return np.random.Generator(np.random.PCG64(context.seed)).permutation(count)


def _inputs(context: Context, indices: np.ndarray) -> Any:
    """Reads the evaluation arrays of examples of the test split, or of the training split."""
    batches = components.eval_batches(
        context.config,
        context.test or context.source,
        indices=indices,
        batch_size=context.options.batch_size,
    )
    valid = [jax.tree.map(lambda x, m=batch["mask"]: x[m], batch["input"]) for batch in batches]
    return jax.tree.map(lambda *parts: np.concatenate(parts), *valid)
