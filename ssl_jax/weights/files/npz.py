"""Reads NumPy's npz archives: a zip of `.npy` files, each a header and the bytes of an array.

A regular expression matches the header, because NumPy's own reader passes it to Python's parser.

Source: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
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
    """Returns (arrays by name, strings by name); the file stores a string as an array of rank 0.

    Raises:
      Refused: if an entry is not a numeric array, or if its size differs from its header.
    """
    arrays, texts = {}, {}
    for entry, info in archive.entries.items():
        if not entry.endswith(".npy"):
            raise Refused(f"entry {quote(entry)} is not a .npy file")
        with archive.open(entry) as stream:
            value = _read_entry(stream, info.file_size, f"entry {quote(entry)}")
        name = entry.removesuffix(".npy")
        if isinstance(value, str):
            texts[name] = value
        else:
            arrays[name] = value
    return arrays, texts


def _read_entry(stream: BinaryIO, size: int, what: str) -> np.ndarray | str:
    code, fortran, shape, start = _read_header(stream, what)
    if text := _TEXT.fullmatch(code):
        length = int(text[1])
        if shape or length > _MAX_TEXT or start + 4 * length != size:
            raise Refused(
                f"{what} holds text; only a single string of at most {_MAX_TEXT:,} characters is "
                "supported"
            )
        return _decode_text(checks.read_exactly(stream, 4 * length, what), what)
    dtype = checks.numeric_dtype(code, what)
    length = checks.nbytes(shape, dtype, what)
    if start + length != size:
        raise Refused(f"{what}: its header needs {start + length:,} bytes, its entry has {size:,}")
    data = checks.read_exactly(stream, length, what).view(dtype)
    return data.reshape(shape, order="F" if fortran else "C")


def _read_header(stream: BinaryIO, what: str) -> tuple[str, bool, list[int], int]:
    """Returns (code of the dtype, Fortran order, shape, position of the data)."""
    magic = stream.read(8)
    if magic[:6] != b"\x93NUMPY" or magic[6:] not in (b"\1\0", b"\2\0", b"\3\0"):
        raise Refused(f"{what} does not start like a .npy file")
    width = 2 if magic[6] == 1 else 4
    length = int.from_bytes(stream.read(width), "little")
    if length > _MAX_HEADER:
        raise Refused(f"{what}: header claims {length:,} bytes, over {_MAX_HEADER:,}")
    text = stream.read(length).decode("latin-1")
    match = _HEADER.fullmatch(text)
    if not match or not _SHAPE.fullmatch(match[3]):
        raise Refused(f"{what}: its header does not describe a numeric array: {quote(text)}")
    shape = [int(size) for size in match[3].replace(",", " ").split()]
    return match[1], match[2] == "True", shape, 8 + width + length


def _decode_text(data: np.ndarray, what: str) -> str:
    try:
        return data.tobytes().decode("utf-32-le").rstrip("\0")
    except UnicodeDecodeError:
        raise Refused(f"{what} holds text that is not valid Unicode") from None
