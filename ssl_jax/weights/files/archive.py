"""Reads zip archives (npz and PyTorch files) entry by entry within fixed bounds."""

import contextlib
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO, BinaryIO, cast

import numpy as np

from ssl_jax.weights.files import checks
from ssl_jax.weights.files.checks import Refused, quote

_MAX_DIRECTORY = 1 << 20  # bytes, enough for ten thousand entries
# Deflate shrinks zeros a thousandfold, but float weights only by about 10 %. Weights of a network
# that is pruned to 5 % shrink less than twentyfold. Small files may grow by any ratio.
_MAX_RATIO = 20
_SMALL = 16 << 20  # bytes
_ENCRYPTED = 0x2041  # flag bits of an entry: encrypted, strong encryption, masked headers
_OUTSIDE = re.compile(r"\.\.|^[/\\]|^[A-Za-z]:")  # a parent folder, the root, a drive
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,  # raised for a position before the start of the file
    OverflowError,
    RuntimeError,
    ValueError,
)


class Archive:
    """The entries of a zip archive by name.

    Args:
      file: the open archive.
      size: size of the file in bytes.

    Raises:
      Refused: if the archive is damaged or would expand beyond the limit, or if entries are
        encrypted, duplicated, overlap, or have names that leave the archive.
    """

    def __init__(self, file: BinaryIO, size: int):
        with _refuse_zip_errors("it is not a complete zip archive"):
            self._zip = zipfile.ZipFile(cast(IO[bytes], _BoundedReader(file, size)))
        self.entries: dict[str, zipfile.ZipInfo] = {}
        for info in self._zip.infolist():
            _check_entry(info, size)
            if info.filename in self.entries:
                raise Refused(f"entry {quote(info.filename)} occurs twice")
            self.entries[info.filename] = info
        stored = sum(info.compress_size for info in self.entries.values())
        claimed = sum(info.file_size for info in self.entries.values())
        if stored > size:
            raise Refused(f"entries overlap: they claim {stored:,} bytes of a file of {size:,}")
        if claimed > max(_SMALL, _MAX_RATIO * size):
            raise Refused(
                f"entries claim to expand to {claimed:,} bytes, over {_MAX_RATIO} times the file's "
                f"{size:,}; weights do not compress that well"
            )
        self.size = size

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """Opens an entry as a file.

        The caller must read it to its end, because zipfile compares the CRC there.
        """
        what = f"entry {quote(name)} is damaged"
        with _refuse_zip_errors(what), self._zip.open(self.entries[name]) as stream:
            yield cast(BinaryIO, stream)
            if stream.read(1):
                raise Refused(f"{what}: it has bytes after its array")

    def read(self, name: str) -> np.ndarray:
        """Returns the contents of an entry, uint8 [size of the entry]."""
        with self.open(name) as stream:
            return checks.read_exactly(stream, self.entries[name].file_size, f"entry {quote(name)}")


def _check_entry(info: zipfile.ZipInfo, size: int) -> None:
    what = f"entry {quote(info.orig_filename)}"
    if _OUTSIDE.search(info.orig_filename):
        raise Refused(f"{what} leaves the archive")
    checks.check_name(info.orig_filename, "entry")
    if info.flag_bits & _ENCRYPTED:
        raise Refused(f"{what} is encrypted")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise Refused(f"{what} uses compression method {info.compress_type}, not deflate")
    if info.compress_type == zipfile.ZIP_STORED and info.compress_size != info.file_size:
        raise Refused(f"{what} is not compressed, but claims two different sizes")
    if info.header_offset + info.compress_size > size:
        raise Refused(f"{what} ends beyond the file")


@contextlib.contextmanager
def _refuse_zip_errors(what: str) -> Iterator[None]:
    """Turns the exceptions that zipfile raises for damaged archives into `Refused`."""
    try:
        yield
    except _ZIP_ERRORS as error:
        raise Refused(f"{what} ({str(error) or type(error).__name__})") from None


class _BoundedReader:
    """Limits each read: zipfile would read a directory of whatever length the file claims."""

    def __init__(self, file: BinaryIO, size: int):
        self._file, self._size = file, size
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, length: int = -1) -> bytes:
        left = max(self._size - self._file.tell(), 0)
        length = left if length < 0 else min(length, left)
        if length > _MAX_DIRECTORY:
            raise Refused(f"its directory claims {length:,} bytes, over {_MAX_DIRECTORY:,}")
        return self._file.read(length)
