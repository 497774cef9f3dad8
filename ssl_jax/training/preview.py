"""Draws the random views of a run's first examples, and lists its unreadable examples."""

import itertools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from ssl_jax import components
from ssl_jax.data import readable
from ssl_jax.data.source import Source
from ssl_jax.errors import BAD_CONFIG, BAD_DATA, Fault
from ssl_jax.report.figures import image_grids

_LISTED = 20  # unreadable examples of each split to print


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


def check_examples(config: ConfigDict) -> None:
    """Loads every example of the training and the evaluation split, and lists the unreadable ones.

    Raises:
      Fault: an example is unreadable (65), or a split cannot be opened.
    """
    train = components.open_source(config, config.data.split)
    test = components.open_test_source(config, train)
    test = test or components.open_unlabelled_test(config, train)
    splits = {config.data.split: train, "evaluation": test}
    opened = {name: source for name, source in splits.items() if source}
    size = sum(source.size for source in opened.values())
    if bad := sum(_list_unreadable(name, source) for name, source in opened.items()):
        raise Fault(
            f"{bad:,} of {size:,} examples are unreadable. Repair or remove them, or replace them "
            "in training by --config.data.on_bad_image=quarantine",
            BAD_DATA,
        )
    print(f"every example is readable: {size:,}")


def _list_unreadable(split: str, source: Source) -> int:
    """Prints the unreadable examples of a split and returns their number."""

    def show(text: str) -> None:
        print(f"{split}: {text}", flush=True)

    show(f"reading {source.size:,} examples of {source.name}")
    reasons = readable.unreadable(source, split)
    for index, reason in itertools.islice(reasons.items(), _LISTED):
        where = source.describe(index)
        show(reason if where in reason else f"{where}: {reason}")
    if len(reasons) > _LISTED:
        show(f"and {len(reasons) - _LISTED:,} more")
    return len(reasons)
