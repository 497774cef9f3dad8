"""What every reader asks of names, sizes and numbers before it believes them.

A reader raises `Refused`, which says what is wrong; `files.read` adds which file it is.
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
_NAME = re.compile(r"(?!/)(?!.*\.\.)[ -\[\]-~]{1,512}")  # printable ASCII but the backslash
_NUMBERS = re.compile(r"([<>=|]?)(f[248]|[iu][1248]|b1)")
_CHUNK = 1 << 20  # elements that are looked at together
_SHARED = 4  # times the file's size that tensors may hold in all: a few weights are tied


class Refused(Exception):
    """What a file holds that is not read, and where in it."""


def quote(text: object) -> str:
    """The text as a message shows it: quoted, escaped and short."""
    shown = repr(text) if isinstance(text, str) else f"a {type(text).__name__}"
    return shown if len(shown) <= 80 else f"{shown[:60]}...{shown[-1]}"


def name(text: object, what: str = "tensor") -> str:
    """The text, if it can be a name: printable ASCII, of no other folder.

    Raises:
      Refused: it cannot.
    """
    if not isinstance(text, str) or not _NAME.fullmatch(text):
        raise Refused(
            f"{what} {quote(text)} has a name that is not allowed (1 to 512 characters of "
            "printable ASCII, no '..', no backslash, no '/' in front)"
        )
    return text


def integer(value: object) -> bool:
    """Whether the value is a whole number that is not negative (True is none)."""
    return type(value) is int and value >= 0


def nbytes(shape: Any, dtype: np.dtype, what: str) -> int:
    """Bytes of a tensor of this shape.

    Raises:
      Refused: the shape is none, or no memory could hold it.
    """
    if not isinstance(shape, list | tuple):
        raise Refused(f"{what} has a shape that is no list of sizes")
    if len(shape) > MAX_RANK:
        raise Refused(f"{what} has {len(shape):,} axes, more than {MAX_RANK}")
    if not all(integer(size) for size in shape):
        raise Refused(f"{what} has a size that is negative or no whole number")
    # NumPy multiplies the sizes of an empty array as well, all but the zeros.
    if math.prod(max(size, 1) for size in shape) * dtype.itemsize >= 2**62:
        raise Refused(f"{what} has a shape that overflows")
    return math.prod(shape) * dtype.itemsize


def number(code: str, what: str) -> np.dtype:
    """The dtype that NumPy writes as `code`, e.g. "<f4".

    Raises:
      Refused: it is none of numbers (objects, records, texts, dates).
    """
    if not _NUMBERS.fullmatch(code):
        raise Refused(f"{what} has dtype {quote(code)}; only numbers are read, no objects")
    return np.dtype(code)


def take(file: BinaryIO, length: int, what: str) -> np.ndarray:
    """The next bytes of a file, uint8 [length]; the caller knows that the file has as many.

    Raises:
      Refused: the file ended meanwhile.
    """
    data = np.empty(length, np.uint8)
    view, done = memoryview(data), 0
    while done < length:
        count = file.readinto(view[done : done + _CHUNK // 2])  # type: ignore[attr-defined]
        if not count:
            raise Refused(f"{what} is cut after {done:,} of {length:,} bytes")
        done += count
    return data


def total(arrays_bytes: int, size: int) -> None:
    """Refuses tensors that together hold far more than the file does.

    Raises:
      Refused: many names for the same bytes.
    """
    if arrays_bytes > _SHARED * size:
        raise Refused(
            f"its tensors hold {arrays_bytes:,} bytes in all, which is more than {_SHARED} times "
            f"the file's {size:,}: the same bytes under too many names"
        )


def finish(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays in the machine's byte order, read-only, in blocks of memory as they are.

    Raises:
      Refused: there is none, a name is not allowed, a number is NaN or infinite, a truth value is
        neither.
    """
    if not arrays:
        raise Refused("it holds no tensors")
    finished = {}
    for key, array in arrays.items():
        flat = array.ravel(order="K")
        for start in range(0, flat.size, _CHUNK):
            _check_values(key, flat[start : start + _CHUNK])
        if not array.dtype.isnative:
            array = array.astype(array.dtype.newbyteorder("="))
        array.flags.writeable = False
        finished[name(key)] = array
    return finished


def _check_values(key: str, values: np.ndarray) -> None:
    if values.dtype == bool:
        if values.view(np.uint8).max() > 1:
            raise Refused(f"tensor {quote(key)} holds truth values that are neither 0 nor 1")
    elif values.dtype.kind not in "iu" and not np.isfinite(values).all():
        raise Refused(f"tensor {quote(key)} holds NaN or infinity")
