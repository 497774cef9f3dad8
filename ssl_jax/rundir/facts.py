"""The file facts.npz: what a run knows about its training data, such as the words of a text.

With it, a checkpoint can be evaluated and exported without the training data.
"""

import hashlib
import os
import pathlib
from collections.abc import Mapping

import numpy as np

from ssl_jax.errors import BAD_DATA, Fault
from ssl_jax.jobs import files

FILE = "facts.npz"
Facts = Mapping[str, np.ndarray]


def digest(facts: Facts) -> str:
    """Returns the sha256, in hex, of names, dtypes, shapes and values; "" without facts."""
    if not facts:
        return ""
    total = hashlib.sha256()
    for name in sorted(facts):
        array = np.ascontiguousarray(facts[name])
        total.update(f"{name} {array.dtype} {array.shape}\n".encode() + array.tobytes())
    return total.hexdigest()


def write(folder: str | os.PathLike[str], facts: Facts) -> None:
    """Writes facts.npz into a workdir, atomically; nothing without facts."""
    if facts:
        with files.atomic_write(pathlib.Path(folder, FILE)) as file:
            np.savez_compressed(file, allow_pickle=False, **facts)


def read(folder: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Returns the facts of a workdir; {} if the run has none.

    Raises:
      Fault: the file is damaged.
    """
    path = pathlib.Path(folder, FILE)
    if not path.exists():
        return {}
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except (OSError, ValueError, EOFError, KeyError) as error:
        message = f"{path} is damaged ({error}). Start the training again to write it anew"
        raise Fault(message, BAD_DATA) from error
