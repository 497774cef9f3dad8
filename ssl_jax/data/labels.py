"""Draws the labelled examples that fine-tuning and linear evaluation use."""

import numpy as np

from ssl_jax.data.source import Source, subset
from ssl_jax.errors import BAD_DATA, Fault, printable


def labelled_subset(source: Source, *, fraction: float, per_class: int, seed: int) -> Source:
    """Returns a source of the labelled examples that fine-tuning trains on.

    Args:
      source: the training examples.
      fraction: fraction of each class, at least one example per class; 1 takes all.
      per_class: number of examples of each class; 0 uses `fraction`. The first draw of linear
        evaluation takes the same examples.
      seed: seed of the draw.

    Raises:
      Fault: the source has no labels, or a class has too few.
    """
    labels = np.array([source.read_label(index) for index in range(source.size)])
    has_label = np.flatnonzero(labels >= 0)
    if not source.classes or not len(has_label):
        raise Fault(f"{source.name} has no labels, and fine-tuning needs them", BAD_DATA)
    if fraction == 1 and not per_class:
        return source if len(has_label) == source.size else subset(source, has_label)
    present, codes = np.unique(labels[has_label], return_inverse=True)
    share = np.maximum(np.rint(fraction * np.bincount(codes)), 1).astype(int)
    rng = np.random.default_rng([seed, 0])
    names = np.array(source.classes)[present]
    drawn = draw_labels(codes, per_class or share, rng=rng, names=names)
    return subset(source, has_label[drawn])


def draw_labels(
    codes: np.ndarray, per_class: int | np.ndarray, *, rng: np.random.Generator, names: np.ndarray
) -> np.ndarray:
    """Draws rows of each class without replacement and returns them sorted.

    Args:
      codes: int [n], labels as 0..k-1.
      per_class: number of rows per class: one number, or an array [k].
      rng: random generator.
      names: [k], class names for the message.

    Raises:
      Fault: a class has too few rows.
    """
    counts = np.bincount(codes)
    wanted = np.broadcast_to(per_class, counts.shape)
    if (counts < wanted).any():
        scarce = int((counts - wanted).argmin())
        name = printable(str(names[scarce]))
        raise Fault(
            f"{wanted[scarce]} labels per class asked, but class {name} has "
            f"{counts[scarce]} in the train split; lower labels_per_class",
            BAD_DATA,
        )
    drawn = [
        rng.choice(np.flatnonzero(codes == code), wanted[code], replace=False)
        for code in range(len(counts))
    ]
    return np.sort(np.concatenate(drawn))


def sample_indices(size: int, limit: int, seed: int) -> np.ndarray | None:
    """Draws `limit` of `size` indices and sorts them; None stands for all indices."""
    if not 0 < limit < size:
        return None
    return np.sort(np.random.default_rng(seed).permutation(size)[:limit])
