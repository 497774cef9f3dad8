"""Random access to TFRecord files: walks the headers once and indexes where each record starts.

A record is: length (8 bytes), masked CRC-32C of the length (4), data, masked CRC-32C of the data
(4), all little-endian. TensorFlow's own reader stops silently at a truncated file, or raises
without naming the record, and it cannot seek. `Records` verifies every length when it opens a
shard, and the data of each record on its first read.
"""

import concurrent.futures
import functools
import os
import pathlib
import struct
from collections.abc import Sequence

import google_crc32c
import numpy as np

from ssl_jax.errors import BAD_DATA, MISSING_INPUT, Fault, printable

_HEADER = struct.Struct("<QI")
_OPEN_FILES = 256  # a thousand shards would exceed the usual limit of 1024 descriptors


class _File:
    """A file descriptor that closes itself when the last thread drops it."""

    def __init__(self, path: str):
        self.fd = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "fd"):
            os.close(self.fd)


class Records:
    """All records of a list of shards, under consecutive indices. Safe to read from many threads.

    Args:
      paths: the shards, in order.
      counts: expected number of records in each shard.

    Raises:
      Fault: MISSING_INPUT if a shard is missing; BAD_DATA if a shard is empty, truncated or
        damaged, or holds another number of records. The message names the shard and the record.
    """

    def __init__(self, paths: Sequence[os.PathLike | str], counts: Sequence[int]):
        self._paths = [os.fspath(path) for path in paths]
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            shards = list(pool.map(_index, self._paths, counts))
        self._first = np.cumsum([0, *counts])
        self._start = np.concatenate([start for start, _ in shards])
        self._length = np.concatenate([length for _, length in shards])
        self._verified = np.zeros(len(self), bool)
        self._open = functools.lru_cache(_OPEN_FILES)(_File)

    def __len__(self) -> int:
        return int(self._first[-1])

    def describe(self, index: int) -> str:
        """Returns the shard's file name and the record's number within the shard."""
        shard, record = self._locate(index)
        return f"{printable(pathlib.Path(self._paths[shard]).name)} record {record}"

    def read(self, index: int) -> bytes:
        """Returns the data of a record; raises ValueError if its checksum does not match."""
        shard, _ = self._locate(index)
        length = int(self._length[index])
        file = self._open(self._paths[shard])
        raw = os.pread(file.fd, length + 4, int(self._start[index]))
        data, stored = raw[:length], raw[length:]
        if not self._verified[index]:
            if len(raw) != length + 4 or _masked_crc32c(data).to_bytes(4, "little") != stored:
                raise ValueError("damaged: the record's checksum does not match its data")
            self._verified[index] = True
        return data

    def _locate(self, index: int) -> tuple[int, int]:
        shard = int(np.searchsorted(self._first, index, side="right")) - 1
        return shard, index - int(self._first[shard])


def _masked_crc32c(data: bytes) -> int:
    """Returns the CRC-32C of `data` as TFRecord stores it: rotated by 15 bits, plus a constant."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _index(path: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the offset and the length in bytes of each record's data, both int64 [count]."""
    try:
        file = _File(path)
    except FileNotFoundError:
        raise Fault(
            f"{printable(path)} is missing; it must hold {count} records. Copy it again or "
            "prepare the dataset again.",
            MISSING_INPUT,
        ) from None
    try:
        starts, lengths = _walk(file.fd, count)
    except ValueError as problem:
        raise Fault(
            f"{printable(path)}: {problem}; expected {count} records. Copy the file again or "
            "prepare the dataset again.",
            BAD_DATA,
        ) from None
    return np.array(starts, np.int64), np.array(lengths, np.int64)


def _walk(fd: int, count: int) -> tuple[list[int], list[int]]:
    """Walks the headers of a shard.

    Returns:
      (offsets of the records' data, their lengths in bytes).

    Raises:
      ValueError: with the first problem, unless the shard holds exactly `count` whole records.
    """
    size = os.fstat(fd).st_size
    if size == 0 and count:
        raise ValueError("the file is empty (0 bytes)")
    starts: list[int] = []
    lengths: list[int] = []
    end = 0
    while end < size and len(starts) <= count:
        record = len(starts)
        header = os.pread(fd, _HEADER.size, end)
        start = end + _HEADER.size
        if len(header) == _HEADER.size:
            length, crc = _HEADER.unpack(header)
            if crc != _masked_crc32c(header[:8]):
                raise ValueError(
                    f"record {record} is damaged: the checksum of its length does not match"
                )
            end = start + length + 4
        else:
            end = start
        if end > size:
            raise ValueError(
                f"cut in record {record}, which ends after byte {size}, the end of the file"
            )
        starts.append(start)
        lengths.append(length)
    if len(starts) != count:
        holds = "more" if len(starts) > count else f"only {len(starts)}"
        raise ValueError(f"it holds {holds} records")
    return starts, lengths
