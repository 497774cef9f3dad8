"""Checks of names, sizes and numbers that all readers share.

A reader raises `Refused` with the problem; `files.read` adds the name of the file.
"""

import math
import re
from collections.abc import Mapping
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
MAX_TENSORS = 20_000
MAX_RANK = 16
_NAME = re.compile(r"(?!/)(?!.*\.\.)[ -\[\]-~]{1,512}")  # printable ASCII without the backslash
_NUMERIC = re.compile(r"([<>=|]?)(f[248]|[iu][1248]|b1)")
_CHUNK = 1 << 20  # elements per chunk when checking values
_MAX_SHARING = 4  # limit of tensor bytes per file byte; a few weights are tied, not most


class Refused(Exception):
    """A file, or a part of it, that a reader refuses; the message names the place and problem."""


def quote(text: object) -> str:
    """Returns the text for a message: quoted, escaped and at most 80 characters long."""
    shown = repr(text) if isinstance(text, str) else f"a {type(text).__name__}"
    return shown if len(shown) <= 80 else f"{shown[:60]}...{shown[-1]}"


def check_name(text: object, what: str = "tensor") -> str:
    """Returns the text if it is a valid name: printable ASCII that leads to no other folder.

    Raises:
      Refused: if it is not.
    """
    if not isinstance(text, str) or not _NAME.fullmatch(text):
        raise Refused(
            f"{what} {quote(text)} has a name that is not allowed (1 to 512 characters of "
            "printable ASCII, no '..', no backslash, no leading '/')"
        )
    return text


def is_size(value: object) -> bool:
    """Returns True for integers of at least 0; a bool is not an integer here."""
    return type(value) is int and value >= 0


def nbytes(shape: Any, dtype: np.dtype, what: str) -> int:
    """Returns the size in bytes of a tensor of this shape.

    Raises:
      Refused: if the shape is invalid, or too large for any memory.
    """
    if not isinstance(shape, list | tuple):
        raise Refused(f"{what} has a shape that is not a list of sizes")
    if len(shape) > MAX_RANK:
        raise Refused(f"{what} has {len(shape):,} axes, more than {MAX_RANK}")
    if not all(is_size(size) for size in shape):
        raise Refused(f"{what} has a size that is negative or not an integer")
    # For empty arrays, NumPy still multiplies the sizes that are not zero.
    if math.prod(max(size, 1) for size in shape) * dtype.itemsize >= 2**62:
        raise Refused(f"{what} has a shape that overflows")
    return math.prod(shape) * dtype.itemsize


def numeric_dtype(code: str, what: str) -> np.dtype:
    """Returns the dtype for NumPy's code, for example "<f4".

    Raises:
      Refused: if the dtype is not numeric (objects, records, texts, dates).
    """
    if not _NUMERIC.fullmatch(code):
        raise Refused(f"{what} has dtype {quote(code)}; only numeric dtypes are supported")
    return np.dtype(code)


def read_exactly(file: BinaryIO, length: int, what: str) -> np.ndarray:
    """Reads the next `length` bytes of a file, uint8 [length].

    The caller must have checked that the file is long enough, since the memory is allocated first.

    Raises:
      Refused: if the file ends earlier.
    """
    data = np.empty(length, np.uint8)
    view, done = memoryview(data), 0
    while done < length:
        count = file.readinto(view[done : done + _CHUNK // 2])  # type: ignore[attr-defined]
        if not count:
            raise Refused(f"{what} is cut after {done:,} of {length:,} bytes")
        done += count
    return data


def check_total_size(arrays_bytes: int, size: int) -> None:
    """Refuses tensors that share the bytes of the file too often.

    Args:
      arrays_bytes: sum of the sizes of all tensors in bytes.
      size: size of the file in bytes.

    Raises:
      Refused: if the tensors hold more than `_MAX_SHARING` times the bytes of the file.
    """
    if arrays_bytes > _MAX_SHARING * size:
        raise Refused(
            f"its tensors hold {arrays_bytes:,} bytes in all, more than {_MAX_SHARING} times the "
            f"file's {size:,}: too many names share the same bytes"
        )


def finalize(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Checks names and values, and returns the arrays read-only and in native byte order.

    Raises:
      Refused: if there are no arrays, a name is not allowed, a number is NaN or infinite, or a
        boolean is neither 0 nor 1.
    """
    if not arrays:
        raise Refused("it holds no tensors")
    finished = {}
    for name, array in arrays.items():
        flat = array.ravel(order="K")  # "K" avoids a copy of Fortran-ordered arrays
        for start in range(0, flat.size, _CHUNK):
            _check_values(name, flat[start : start + _CHUNK])
        if not array.dtype.isnative:
            array = array.astype(array.dtype.newbyteorder("="))
        array.flags.writeable = False
        finished[check_name(name)] = array
    return finished


def _check_values(name: str, values: np.ndarray) -> None:
    if values.dtype == bool:
        if values.view(np.uint8).max() > 1:
            raise Refused(f"tensor {quote(name)} holds booleans that are neither 0 nor 1")
    elif values.dtype.kind not in "iu" and not np.isfinite(values).all():
        raise Refused(f"tensor {quote(name)} holds NaN or infinity")
