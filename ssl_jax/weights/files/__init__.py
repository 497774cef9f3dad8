"""Files of weights: `read` tells by content what a file is, and refuses what it cannot trust.

No reader runs code of a file, follows a name in one, or reserves memory that only a file claims.
"""

import os
import pathlib
import stat
from collections.abc import Mapping
from typing import BinaryIO, NamedTuple

import numpy as np

from ssl_jax.errors import BAD_DATA, IO_ERROR, MISSING_INPUT, Fault
from ssl_jax.weights.files import checks, npz, pickles, safetensors, tensorflow, torch
from ssl_jax.weights.files.archive import Archive
from ssl_jax.weights.files.checks import Refused

_READABLE = (
    "safetensors, NumPy's npz, PyTorch's .pth/.pt/.tar (dictionaries of tensors), pickles of "
    "dictionaries of NumPy arrays (protocol 2 or later), TensorFlow's checkpoints (by prefix or "
    "folder)"
)
# Starts of files that people give by mistake.
_MISTAKES = (
    (b"version https://git-lfs", "a pointer of Git LFS: run `git lfs pull`"),
    (b"\x89HDF", "an HDF5 file: save it again as npz"),
    (b"\x1f\x8b", "compressed by gzip: unpack it first"),
    (b"\x93NUMPY", "a single .npy array: save all by np.savez"),
)


class File(NamedTuple):
    """What a file of weights holds."""

    arrays: dict[str, np.ndarray]
    """By name; read-only, numbers, finite."""

    meta: Mapping[str, str]
    """Texts beside the arrays: those of a safetensors header, or of an npz file."""

    kind: str  # "safetensors", "npz", "torch", "tensorflow" or "pickle"


def read(path: str | os.PathLike[str]) -> File:
    """Reads a file of weights of any kind, or a checkpoint of TensorFlow.

    Args:
      path: a file; or a checkpoint's prefix, or a folder with a file `checkpoint`.

    Raises:
      Fault: nothing there (66), not readable (74), or unknown, damaged or hostile (65); the
        message names the tensor or the byte, and what is wrong.
    """
    where = pathlib.Path(path).expanduser()
    try:
        found = _read(where)
        return found._replace(arrays=checks.finish(found.arrays))
    except Refused as refused:
        message = f"{where}: {refused}. Nothing of it was used; get it anew, or save it anew as"
        raise Fault(f"{message} safetensors.", BAD_DATA) from None
    except FileNotFoundError:
        message = f"{where} is missing: no file, and no checkpoint of TensorFlow has that prefix"
        raise Fault(message, MISSING_INPUT) from None
    except (OSError, ValueError) as error:  # a path with a null byte is a ValueError
        raise Fault(f"{where} cannot be read: {error}", IO_ERROR) from None


def _read(path: pathlib.Path) -> File:
    prefix = tensorflow.prefix(path)
    if prefix is not None:
        return File(tensorflow.read(prefix), {}, "tensorflow")
    # Looked at first: opening a pipe waits, and opening a device may do anything.
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise Refused("it is no regular file")
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
    raise Refused(f"it is {_mistake(start)}. What can be read: {_READABLE}")


def _mistake(start: bytes) -> str:
    if start.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page, not the file that its address promised"
    return next((what for magic, what in _MISTAKES if start.startswith(magic)), "of unknown kind")
