"""Protocol `retrieval`: recall of images by their captions, and of captions by their images."""

from typing import Any

import numpy as np

from ssl_jax.evals import retrieval
from ssl_jax.evals.context import Context, describe_test
from ssl_jax.evals.protocols import Measured, Needs
from ssl_jax.evals.subjects import RAW

NEEDS = Needs(labels=False, train_features=False, method=True, towers=True)
ORDER = 15
KS = (1, 5, 10)
MEASURES = tuple(f"{way}_r{k}" for way in ("image_to_text", "text_to_image") for k in KS)
CHANCE = "chance"  # row of the expected recall of a random order


def run(context: Context) -> Measured:
    """Ranks captions for each test image, and test images for each caption.

    Captions that are equal to the text encoder count as one: candidates are the distinct captions,
    and every image with a caption is right for it.
    """
    columns = context.embedded
    _, first, groups = np.unique(columns["text"], axis=0, return_index=True, return_inverse=True)
    groups = groups.reshape(-1)
    captions = np.arange(len(first))
    sizes = {"n_test": len(groups), "captions": len(first)}
    results: dict[str, dict[str, Any]] = {}
    for name, column in context.columns.items():
        if column == RAW:
            continue
        image, text = columns[f"{column}/image"], columns[f"{column}/text"][first]
        ways = ((image, groups, text, captions), (text, captions, image, groups))
        recalls = [
            value
            for way in ways
            for value in retrieval.recall(retrieval.ranks(*way, sharding=context.sharding), KS)
        ]
        results[name] = dict(zip(MEASURES, recalls, strict=True)) | sizes
    images_of_caption = np.bincount(groups)
    expected = retrieval.chance(np.ones(len(groups), int), len(first), KS)
    expected += retrieval.chance(images_of_caption, len(groups), KS)
    results[CHANCE] = dict(zip(MEASURES, expected, strict=True)) | sizes
    return Measured(results)


def describe(context: Context, results: dict[str, Any]) -> dict[str, Any]:
    """Returns the protocol in words and values."""
    sizes = next(iter(results.values()))
    return {
        "labels": "none",
        "similarity": "cosine of the embeddings",
        "score": f"recall at {', '.join(map(str, KS))}: fraction of queries with a right candidate "
        "among the first; a wrong candidate of equal similarity comes first",
        "image_to_text": f"{sizes['n_test']:,} images as queries, {sizes['captions']:,} distinct "
        "captions as candidates",
        "text_to_image": f"{sizes['captions']:,} distinct captions as queries, "
        f"{sizes['n_test']:,} images as candidates; each image with this caption is right",
        "caption": "the first of each image, cut to "
        f"{context.config.augment.text_length} tokens; equal tokens are one caption",
    } | describe_test(context.config, context.input, context.held_out)


def heading(protocol: dict[str, Any]) -> str:
    """Returns the title of its table."""
    del protocol
    return "retrieval"
