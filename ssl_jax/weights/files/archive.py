"""Zip archives, which npz files and PyTorch's are, read entry by entry within bounds."""

import contextlib
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO, BinaryIO, cast

import numpy as np

from ssl_jax.weights.files import checks
from ssl_jax.weights.files.checks import Refused, quote

_MAX_DIRECTORY = 1 << 20  # bytes: ten thousand entries
# Deflate makes a thousand of one, if all is zeros; float weights shrink by a tenth, and those of a
# net pruned to a twentieth by less than twenty. Small files are let be, whatever they say.
_MAX_RATIO = 20
_SMALL = 16 << 20  # bytes
_ENCRYPTED = 0x2041  # bits of an entry's flags: encrypted, strongly so, headers hidden
_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,  # of a position before the file's start
    OverflowError,
    RuntimeError,
    ValueError,
)


class Archive:
    """A zip archive's entries by name.

    Args:
      file: the archive.
      size: of the file in bytes.

    Raises:
      Refused: it is damaged, has entries that leave the archive, are there twice, encrypted, share
        bytes, or would grow beyond reason.
    """

    def __init__(self, file: BinaryIO, size: int):
        with _explained("it is no whole zip archive"):
            self._zip = zipfile.ZipFile(cast(IO[bytes], _Bounded(file, size)))
        self.entries: dict[str, zipfile.ZipInfo] = {}
        for info in self._zip.infolist():
            _check(info, size)
            if info.filename in self.entries:
                raise Refused(f"entry {quote(info.filename)} is there twice")
            self.entries[info.filename] = info
        stored = sum(info.compress_size for info in self.entries.values())
        claimed = sum(info.file_size for info in self.entries.values())
        if stored > size:
            raise Refused(f"entries overlap: they take {stored:,} bytes of a file of {size:,}")
        if claimed > max(_SMALL, _MAX_RATIO * size):
            raise Refused(
                f"entries claim to grow to {claimed:,} bytes, over {_MAX_RATIO} times the file's "
                f"{size:,}: no weights shrink so far"
            )
        self.size = size

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """The entry's content as a file; it must be read to its end, where its CRC is compared."""
        what = f"entry {quote(name)} is damaged"
        with _explained(what), self._zip.open(self.entries[name]) as stream:
            yield cast(BinaryIO, stream)
            if stream.read(1):
                raise Refused(f"{what}: it goes on behind its array")

    def read(self, name: str) -> np.ndarray:
        """The entry's content, uint8 [size of the entry]."""
        with self.open(name) as stream:
            return checks.take(stream, self.entries[name].file_size, f"entry {quote(name)}")


def _check(info: zipfile.ZipInfo, size: int) -> None:
    what = f"entry {quote(info.orig_filename)}"
    if ".." in info.orig_filename or info.orig_filename[:1] in "/\\" or ":" in info.orig_filename:
        raise Refused(f"{what} leaves the archive")
    checks.name(info.orig_filename, "entry")
    if info.flag_bits & _ENCRYPTED:
        raise Refused(f"{what} is encrypted")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise Refused(f"{what} is compressed by method {info.compress_type}, not by deflate")
    if info.compress_type == zipfile.ZIP_STORED and info.compress_size != info.file_size:
        raise Refused(f"{what} is stored, yet claims two sizes")
    if info.header_offset + info.compress_size > size:
        raise Refused(f"{what} ends beyond the file")


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turns what zipfile raises at damage into a refusal."""
    try:
        yield
    except _BROKEN as error:
        raise Refused(f"{what} ({str(error) or type(error).__name__})") from None


class _Bounded:
    """A file that gives little at once: zipfile reads a directory as long as the file claims."""

    def __init__(self, file: BinaryIO, size: int):
        self._file, self._size = file, size
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, length: int = -1) -> bytes:
        left = max(self._size - self._file.tell(), 0)
        length = left if length < 0 else min(length, left)
        if length > _MAX_DIRECTORY:
            raise Refused(f"its directory claims {length:,} bytes, over {_MAX_DIRECTORY:,}")
        return self._file.read(length)
