"""Random access to ArrayRecord files, through the reader that comes with TensorFlow Datasets."""

import concurrent.futures
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from ssl_jax.errors import BAD_DATA, Fault


class Records:
    """The records of some shards, numbered through; safe to read from many threads.

    Args:
      paths: the shards, in order.
      counts: how many records each shard must hold. The reader itself opens a cut file, says
        nothing, and returns empty records.

    Raises:
      Fault: a shard is missing, cut or damaged, or holds another number of records (65).
    """

    def __init__(self, paths: Sequence[os.PathLike | str], counts: Sequence[int]):
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        self._paths = [os.fspath(path) for path in paths]
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            list(pool.map(_check, self._paths, counts))
        self._first = np.cumsum([0, *counts])
        self._records = ArrayRecordDataSource(self._paths)

    def describe(self, index: int) -> str:
        """Returns the shard and the record's number in it."""
        shard = int(np.searchsorted(self._first, index, side="right")) - 1
        return f"{pathlib.Path(self._paths[shard]).name} record {index - self._first[shard]}"

    def read(self, index: int) -> bytes:
        """Returns the data of a record; raises ValueError if the file is damaged there."""
        try:
            return self._records[index]
        except RuntimeError as error:
            raise ValueError(f"damaged: {error}") from error


def _check(path: str, count: int) -> None:
    """Raises Fault unless a shard holds `count` records."""
    from array_record.python.array_record_module import ArrayRecordReader

    try:
        reader = ArrayRecordReader(path)
        found = reader.num_records()
        reader.close()
    except (RuntimeError, ValueError) as error:
        found, reason = 0, str(error)
    else:
        reason = f"it holds {found} records"
    if found != count:
        raise Fault(
            f"{path}: {reason}; expected {count} records. Copy the file again or prepare the "
            "dataset again.",
            BAD_DATA,
        )
