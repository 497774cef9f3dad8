"""A small text with two classes, for tests."""

import numpy as np

SIZES = {"train": 40, "test": 20}  # documents


def write_text(folder):
    """Writes folder/SPLIT/CLASS/x.txt: pairs n0 t0, n1 t1, ... in class a, words w0, w1 in b."""
    rng = np.random.default_rng(0)
    for split, count in SIZES.items():
        for name in "ab":
            lines = [_document(rng, name) for _ in range(count)]
            path = folder / split / name / "x.txt"
            path.parent.mkdir(parents=True)
            path.write_text("\n".join(lines) + "\n")


def _document(rng, name):
    numbers = rng.integers(0, 8, rng.integers(5, 20))
    words = [f"n{i} t{i}" if name == "a" else f"w{i}" for i in numbers]
    return " ".join(["common", *words])
