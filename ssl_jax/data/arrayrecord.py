"""Random access to ArrayRecord files, with the reader that TensorFlow Datasets installs."""

import concurrent.futures
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from ssl_jax.errors import BAD_DATA, Fault, printable


class Records:
    """All records of a list of shards, under consecutive indices. Safe to read from many threads.

    Args:
      paths: the shards, in order.
      counts: expected number of records in each shard. The library's reader opens a truncated
        file without an error and returns empty records, so the number is checked here.

    Raises:
      Fault: BAD_DATA if a shard is missing, truncated or damaged, or holds another number of
        records.
    """

    def __init__(self, paths: Sequence[os.PathLike | str], counts: Sequence[int]):
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        self._paths = [os.fspath(path) for path in paths]
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            list(pool.map(_require_count, self._paths, counts))
        self._first = np.cumsum([0, *counts])
        self._records = ArrayRecordDataSource(self._paths)

    def describe(self, index: int) -> str:
        """Returns the shard's file name and the record's number within the shard."""
        shard = int(np.searchsorted(self._first, index, side="right")) - 1
        name = printable(pathlib.Path(self._paths[shard]).name)
        return f"{name} record {index - self._first[shard]}"

    def read(self, index: int) -> bytes:
        """Returns the data of a record; raises ValueError if the file is damaged there."""
        try:
            return self._records[index]
        except RuntimeError as error:
            raise ValueError(f"damaged: {error}") from error


def _require_count(path: str, count: int) -> None:
    """Raises Fault unless a shard holds exactly `count` records."""
    from array_record.python.array_record_module import ArrayRecordReader

    try:
        reader = ArrayRecordReader(path)
        records = reader.num_records()
        reader.close()
    except (RuntimeError, ValueError) as error:
        records, problem = 0, str(error)
    else:
        problem = f"it holds {records} records"
    if records != count:
        raise Fault(
            f"{printable(path)}: {problem}; expected {count} records. Copy the file again or "
            "prepare the dataset again.",
            BAD_DATA,
        )
