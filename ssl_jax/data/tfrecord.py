"""Random access to TFRecord files: an index of offsets, built once by walking the headers.

A record is: length (8 bytes), masked CRC-32C of the length (4), data, masked CRC-32C of the data
(4). TensorFlow's own reader ends quietly at a cut file or raises without naming the record, and
cannot seek. Here every length is verified at the start, and every record when it is first read.
"""

import concurrent.futures
import functools
import os
import pathlib
import struct
from collections.abc import Sequence

import numpy as np

from ssl_jax.data import crc32c
from ssl_jax.errors import BAD_DATA, MISSING_INPUT, Fault

_HEADER = struct.Struct("<QI")
_OPEN_FILES = 256  # a thousand shards would exhaust the usual limit of 1024 descriptors


class _File:
    """A descriptor that closes itself when the last thread lets go of it."""

    def __init__(self, path: str):
        self.fd = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "fd"):
            os.close(self.fd)


class Records:
    """The records of some shards, numbered through; safe to read from many threads.

    Args:
      paths: the shards, in order.
      counts: how many records each shard must hold.

    Raises:
      Fault: a shard is missing (66), or cut, damaged, empty or of another length than it must
        have (65); the message names the shard and the record.
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
        """Returns the shard and the record's number in it."""
        shard, record = self._locate(index)
        return f"{pathlib.Path(self._paths[shard]).name} record {record}"

    def read(self, index: int) -> bytes:
        """Returns the data of a record; raises ValueError if its checksum does not match."""
        shard, _ = self._locate(index)
        length = int(self._length[index])
        file = self._open(self._paths[shard])
        raw = os.pread(file.fd, length + 4, int(self._start[index]))
        data, stored = raw[:length], raw[length:]
        if not self._verified[index]:
            if len(raw) != length + 4 or crc32c.mask(crc32c.crc32c(data)).tobytes() != stored:
                raise ValueError("damaged: the record's checksum does not match its data")
            self._verified[index] = True
        return data

    def _locate(self, index: int) -> tuple[int, int]:
        shard = int(np.searchsorted(self._first, index, side="right")) - 1
        return shard, index - int(self._first[shard])


def _index(path: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns where the data of each record of a shard starts and its length, int64 [count]."""
    try:
        file = _File(path)
    except FileNotFoundError:
        raise Fault(
            f"{path} is missing; it must hold {count} records. Copy it again or prepare the "
            "dataset again.",
            MISSING_INPUT,
        ) from None
    size = os.fstat(file.fd).st_size
    starts: list[int] = []
    headers, end = bytearray(), 0
    while end < size and len(starts) <= count:
        header = os.pread(file.fd, 12, end)
        if len(header) < 12:
            end += 16
            break
        starts.append(end + 12)
        headers += header
        end += 16 + _HEADER.unpack(header)[0]
    fields = np.frombuffer(headers, np.dtype([("length", "<u8"), ("crc", "<u4")]))
    wrong = np.flatnonzero(crc32c.mask(crc32c.crc32c_of_words(fields["length"])) != fields["crc"])
    length = fields["length"].astype(np.int64)
    if problem := _problem(count, size, end, np.array(starts, np.int64) + length + 4, wrong):
        advice = "Copy the file again or prepare the dataset again."
        raise Fault(f"{path}: {problem}; expected {count} records. {advice}", BAD_DATA)
    return np.array(starts, np.int64), length


def _problem(count: int, size: int, end: int, ends: np.ndarray, wrong: np.ndarray) -> str:
    """Says what the walk of a shard found amiss: `wrong` are the records with a bad header."""
    if size == 0 and count:
        return "the file is empty (0 bytes)"
    if len(wrong):
        return f"record {wrong[0]} is damaged: the checksum of its length does not match"
    if end > size:
        complete = int((ends <= size).sum())
        return f"cut in record {complete}, which ends after byte {size}, the end of the file"
    if len(ends) != count:
        return f"it holds {'more' if len(ends) > count else f'only {len(ends)}'} records"
    return ""
