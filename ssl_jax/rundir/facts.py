"""The facts of a run: arrays made from its training data, such as a tokenizer, in facts.npz.

Evaluation reads them, so that other data are treated like the training data.
"""

import hashlib
from pathlib import Path

import numpy as np

from ssl_jax.data.source import Facts
from ssl_jax.errors import BAD_CHECKPOINT, Fault
from ssl_jax.jobs import files
from ssl_jax.rundir.arrays import DAMAGED

FILE = "facts.npz"


def digest(facts: Facts) -> str:
    """Returns the sha256, in hex, of the facts' names and values; "" without facts."""
    if not facts:
        return ""
    whole = hashlib.sha256()
    for name, array in sorted(facts.items()):
        whole.update(f"{name} {array.dtype} {array.shape} ".encode())
        whole.update(np.ascontiguousarray(array).tobytes())
    return whole.hexdigest()


def write(workdir: Path, facts: Facts) -> None:
    """Writes the facts into a workdir; writes nothing without facts."""
    if facts:
        with files.atomic_write(workdir / FILE) as archive:
            np.savez_compressed(archive, **dict(facts))  # type: ignore[arg-type]


def read(workdir: Path) -> dict[str, np.ndarray] | None:
    """Returns the facts of a run; None if the run has none.

    Raises:
      Fault: the file is damaged.
    """
    path = workdir / FILE
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except DAMAGED as error:
        message = f"{path} is damaged ({error}). Run the training command again, which writes it"
        raise Fault(message, BAD_CHECKPOINT) from error
