"""Tells whether a PNG file holds all its rows. Pillow leaves missing rows black, without error."""

import struct
import zlib
from typing import Any

_HEADER = struct.Struct(">IIBBBBB")  # width, height, bits, colour type, ..., interlaced
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of each colour type
# First column and row, and steps, of each pass. Source: PNG specification, section 8.2.
_WHOLE = ((0, 0, 1, 1),)
_ADAM7 = (
    *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)),
    *((0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)),
)
_PIECE = 2**20  # bytes to decompress at once


def check(data: bytes, image: Any) -> None:
    """Checks that a PNG file holds all rows of its picture.

    Args:
      data: the whole file, which Pillow has decoded without an error.
      image: the decoded image, not converted.

    Raises:
      ValueError: rows are missing.
    """
    bottom = image.crop((0, image.height - 1, *image.size))
    if not image.info.get("interlace") and any(bottom.tobytes()):
        return  # Pillow fills missing rows with zeros, so the last row is there
    expected = _expected(data)
    present = _present(data, expected)
    if present < expected:
        raise ValueError(f"only {present:,} of {expected:,} bytes of pixels are in the file")


def _expected(data: bytes) -> int:
    """Returns the number of bytes of all rows, each with its filter byte."""
    width, height, bits, colour, _, _, interlaced = _HEADER.unpack_from(data, 16)
    total = 0
    for x, y, step_x, step_y in _ADAM7 if interlaced else _WHOLE:
        columns, rows = -(-(width - x) // step_x), -(-(height - y) // step_y)
        if columns > 0:
            total += max(rows, 0) * (1 + (columns * bits * _CHANNELS[colour] + 7) // 8)
    return total


def _present(data: bytes, limit: int) -> int:
    """Returns the number of bytes that the IDAT chunks decompress to, at most about `limit`."""
    stream, count, position = zlib.decompressobj(), 0, 8
    while position + 8 <= len(data) and count < limit:
        length, kind = struct.unpack_from(">I4s", data, position)
        body = data[position + 8 : position + 8 + length] if kind == b"IDAT" else b""
        position += 12 + length
        while count < limit and (piece := stream.decompress(body, _PIECE)):
            count, body = count + len(piece), stream.unconsumed_tail
    return count
