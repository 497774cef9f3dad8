"""Reads files of weights. `read` recognises the kind by content and refuses invalid files.

No reader executes code from a file, opens a path named in a file, or allocates memory for sizes
that a file only claims.
"""

import os
import pathlib
import stat
from typing import BinaryIO, NamedTuple

import numpy as np

from ssl_jax.errors import BAD_DATA, IO_ERROR, MISSING_INPUT, Fault
from ssl_jax.weights.files import checks, npz, pickles, safetensors, tensorflow, torch
from ssl_jax.weights.files.archive import Archive
from ssl_jax.weights.files.checks import Refused

_SUPPORTED = (
    "safetensors, NumPy's npz, PyTorch's .pth/.pt/.tar (dictionaries of tensors), pickles of "
    "dictionaries of NumPy arrays (protocol 2 or later), TensorFlow checkpoints (by prefix or "
    "folder)"
)
# First bytes of files that people often pass by mistake.
_MISTAKES = (
    (b"version https://git-lfs", "a Git LFS pointer: run `git lfs pull`"),
    (b"\x89HDF", "an HDF5 file: save it as npz"),
    (b"\x1f\x8b", "compressed by gzip: decompress it first"),
    (b"\x93NUMPY", "a single .npy array: save all arrays with np.savez"),
)


class File(NamedTuple):
    """Contents of a file of weights."""

    arrays: dict[str, np.ndarray]
    """Arrays by name: read-only, numeric, finite."""

    meta: dict[str, str]
    """Texts beside the arrays: metadata of a safetensors header, or strings in an npz file."""

    kind: str  # "safetensors", "npz", "torch", "tensorflow" or "pickle"


def read(path: str | os.PathLike[str]) -> File:
    """Reads a file of weights of any supported kind, or a TensorFlow checkpoint.

    Args:
      path: a file, the prefix of a TensorFlow checkpoint, or a folder with a file `checkpoint`.

    Raises:
      Fault: if the path does not exist (code 66), cannot be read (74), or if the contents are
        unsupported, damaged or hostile (65). The message names the tensor, entry or byte and the
        problem.
    """
    where = pathlib.Path(path).expanduser()
    try:
        file = _read_path(where)
        return file._replace(arrays=checks.finalize(file.arrays))
    except Refused as refused:
        message = f"{where}: {refused}. Nothing was loaded. Download the file again, or save the"
        raise Fault(f"{message} weights as safetensors.", BAD_DATA) from None
    except (FileNotFoundError, NotADirectoryError):
        message = f"{where} is missing: no file and no TensorFlow checkpoint has this path"
        raise Fault(message, MISSING_INPUT) from None
    except (OSError, ValueError) as error:  # a null byte in a path raises ValueError
        raise Fault(f"{where} cannot be read: {error}", IO_ERROR) from None


def _read_path(path: pathlib.Path) -> File:
    prefix = tensorflow.prefix(path)
    if prefix is not None:
        return File(tensorflow.read(prefix), {}, "tensorflow")
    # Check before opening: opening a pipe blocks, and opening a device may have side effects.
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise Refused("it is not a regular file")
    with path.open("rb") as file:
        return _read_file(file, os.fstat(file.fileno()).st_size, path.suffix)


def _read_file(file: BinaryIO, size: int, suffix: str) -> File:
    start = file.read(64)
    file.seek(0)
    if not size:
        raise Refused("it is empty (0 bytes)")
    if start.startswith((b"PK\3\4", b"PK\5\6")):
        archive = Archive(file, size)
        if torch.is_zip(archive):
            return File(torch.read_zip(archive), {}, "torch")
        return File(*npz.read(archive), "npz")
    if start.startswith(torch.LEGACY):
        return File(torch.read_legacy(file, size), {}, "torch")
    if start[:1] == b"\x80" and start[1:2] in (b"\2", b"\3", b"\4", b"\5"):
        return File(pickles.read(file, size), {}, "pickle")
    if start[8:9] == b"{" or suffix == ".safetensors":
        return File(*safetensors.read(file, size), "safetensors")
    raise Refused(f"it is {_describe(start)}. Supported are: {_SUPPORTED}")


def _describe(start: bytes) -> str:
    if start.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page, not the file that the download link promised"
    return next((text for magic, text in _MISTAKES if start.startswith(magic)), "of unknown kind")
