"""NumPy's archives: a zip of `.npy` files, each a header and the array's bytes.

https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html. Headers are read by a
pattern: NumPy's own reader hands them to Python's parser.
"""

import re
from typing import BinaryIO

import numpy as np

from ssl_jax.weights.files import checks
from ssl_jax.weights.files.archive import Archive
from ssl_jax.weights.files.checks import Refused, quote

_MAX_HEADER = 4096  # bytes
_MAX_TEXT = 65_536  # characters
_HEADER = re.compile(
    r"\{'descr': '([^']{1,20})', 'fortran_order': (True|False), 'shape': \(([0-9, ]*)\),? ?\} *\n"
)
_SHAPE = re.compile(r"(|[0-9]{1,18},|[0-9]{1,18}(, ?[0-9]{1,18}){1,15},?)")
_TEXT = re.compile(r"[<=]U([0-9]{1,6})")


def read(archive: Archive) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays by name, and by name the texts that are saved as arrays without axes.

    Raises:
      Refused: an entry is no array of numbers, or another size than its header says.
    """
    arrays, texts = {}, {}
    for entry, info in archive.entries.items():
        if not entry.endswith(".npy"):
            raise Refused(f"entry {quote(entry)} is no .npy file")
        with archive.open(entry) as stream:
            value = _value(stream, info.file_size, f"entry {quote(entry)}")
        name = entry.removesuffix(".npy")
        if isinstance(value, str):
            texts[name] = value
        else:
            arrays[name] = value
    return arrays, texts


def _value(stream: BinaryIO, size: int, what: str) -> np.ndarray | str:
    code, fortran, shape, start = _header(stream, what)
    if text := _TEXT.fullmatch(code):
        length = int(text[1])
        if shape or length > _MAX_TEXT or start + 4 * length != size:
            raise Refused(f"{what} holds texts; one of at most {_MAX_TEXT:,} characters is read")
        return _text(checks.take(stream, 4 * length, what), what)
    dtype = checks.number(code, what)
    length = checks.nbytes(shape, dtype, what)
    if start + length != size:
        raise Refused(f"{what}: its header needs {start + length:,} bytes, its entry has {size:,}")
    data = checks.take(stream, length, what).view(dtype)
    return data.reshape(shape, order="F" if fortran else "C")


def _header(stream: BinaryIO, what: str) -> tuple[str, bool, list[int], int]:
    """(dtype's code, Fortran order, shape, where the data start)."""
    magic = stream.read(8)
    if magic[:6] != b"\x93NUMPY" or magic[6:] not in (b"\1\0", b"\2\0", b"\3\0"):
        raise Refused(f"{what} does not start like a .npy file")
    width = 2 if magic[6] == 1 else 4
    length = int.from_bytes(stream.read(width), "little")
    if length > _MAX_HEADER:
        raise Refused(f"{what}: header claims {length:,} bytes, over {_MAX_HEADER:,}")
    text = stream.read(length).decode("latin-1")
    found = _HEADER.fullmatch(text)
    if not found or not _SHAPE.fullmatch(found[3]):
        raise Refused(f"{what}: its header is none of an array of numbers: {quote(text)}")
    shape = [int(size) for size in found[3].replace(",", " ").split()]
    return found[1], found[2] == "True", shape, 8 + width + length


def _text(data: np.ndarray, what: str) -> str:
    try:
        return data.tobytes().decode("utf-32-le").rstrip("\0")
    except UnicodeDecodeError:
        raise Refused(f"{what} holds a text that is no Unicode") from None
