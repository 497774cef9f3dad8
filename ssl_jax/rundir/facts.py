"""The file facts.npz: what a run made of its training data, such as a tokenizer.

With it, other data are treated like the training data, and a checkpoint can be evaluated without
them.
"""

import hashlib
import io
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from ssl_jax.data.source import Facts
from ssl_jax.errors import BAD_DATA, Fault
from ssl_jax.jobs import files
from ssl_jax.rundir.arrays import DAMAGED

FILE = "facts.npz"


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
        # NumPy leaves a damaged file open.
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            return dict(file)
    except DAMAGED as error:
        message = f"{path} is damaged ({error}). Start the training again to write it anew"
        raise Fault(message, BAD_DATA) from error


def require_same(folder: str | os.PathLike[str], known: Facts, meta: Mapping[str, Any]) -> None:
    """Compares the facts of a workdir with those that its checkpoint was trained with.

    Args:
      folder: the workdir.
      known: what `read` returned.
      meta: description of the data in the checkpoint; those of older runs do not name the facts.

    Raises:
      Fault: the file is missing, or belongs to another run.
    """
    expected = meta.get("facts")
    if expected is None or digest(known) == expected:
        return
    path = pathlib.Path(folder, FILE)
    found = "is not the file that its checkpoint was trained with" if known else "is missing"
    raise Fault(
        f"{path} {found}. It holds what the run made of its training data, such as a tokenizer or "
        "a vocabulary. Copy the original file back, or start the training again to write it anew",
        BAD_DATA,
    )
