"""Reads NumPy archives of a workdir, which may be damaged or written by anybody."""

import io
import os
import zipfile
import zlib

import numpy as np

from ssl_jax.jobs import files, json_files

# What NumPy and zipfile raise for damaged archives. MemoryError: a header claims a huge array.
DAMAGED = (
    *(ValueError, OSError, EOFError, KeyError, TypeError, OverflowError, MemoryError),
    *(NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error),
)


def read_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Returns the arrays of an .npz file by name; {} if the file is missing or damaged.

    Logs one line for a damaged file.
    """
    try:
        with np.load(io.BytesIO(files.read(path)), allow_pickle=False) as arrays:
            return {name: np.asarray(array) for name, array in arrays.items()}
    except FileNotFoundError:
        return {}
    except DAMAGED as error:
        json_files.log_ignored(path, error)
        return {}
