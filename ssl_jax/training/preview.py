"""Draws the random views of a run's first examples."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from ssl_jax import components
from ssl_jax.data.source import Source
from ssl_jax.errors import BAD_CONFIG, Fault
from ssl_jax.report.figures import image_grids


def draw_views(config: ConfigDict, source: Source, path: Path, count: int = 8) -> None:
    """Writes a picture of the run's first `count` examples with their random views.

    Raises:
      Fault: the modality has no pictures.
    """
    example_input = components.make_input(config)
    if example_input.preview is None:
        raise Fault(f"{source.name}: this modality has no pictures of its views", BAD_CONFIG)
    count = min(count, source.size)
    # Order and views do not depend on the batch size, so these are the run's first examples.
    batches = components.train_batches(
        config, source, start_step=0, num_steps=1, batch_size=count, host=(0, 1)
    )
    batch = next(batches)
    seen = jax.device_get(example_input.device(jax.tree.map(jnp.asarray, batch)))
    pictures = []
    for row, index in enumerate(batch["index"]):
        record, _ = source.load(int(index))
        arrays = {name: seen[name][row] for name in example_input.seen}
        pictures.append(example_input.preview(record, arrays))
    image_grids.draw_views(
        [picture["original"] for picture in pictures],
        np.stack([picture["views"] for picture in pictures]),
        path,
        local=np.stack([p["local_views"] for p in pictures]) if "local_views" in seen else None,
    )
