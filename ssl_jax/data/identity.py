"""Identity of the files of a source: a hash of their names and sizes.

The hash notices that two hosts, or a run and its continuation, read different files. It does not
read the files. The names are known from listing the folder, but each size takes a system call, and
on a network disk a message to its server. Therefore sizes are read of MAX_SIZES files at most.
"""

import concurrent.futures
import hashlib
import os
from collections.abc import Iterable, Sequence

from etils import epath

MAX_SIZES = 2**16  # all files of most folders; every 20th file of ImageNet
_THREADS = 32  # system calls that wait for a network disk at the same time
_PART = 256  # files per task of a thread


def of_files(paths: Sequence[str], root: str, notes: Iterable[str] = ()) -> str:
    """Returns the sha256, in hex, of the names and sizes of files, in the given order.

    Args:
      paths: the files. If there are more than MAX_SIZES, the sizes of MAX_SIZES evenly spaced
        files count.
      root: their folder, which may differ between hosts; it is not part of the names.
      notes: further lines to hash.
    """
    digest = hashlib.sha256()
    for path in paths:
        digest.update(os.fsencode(path.removeprefix(root).lstrip(os.sep)) + b"\0")
    count = min(len(paths), MAX_SIZES)
    chosen = [paths[i * len(paths) // count] for i in range(count)]
    parts = [chosen[i : i + _PART] for i in range(0, count, _PART)]
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        for sizes in pool.map(lambda part: [_size(path) for path in part], parts):
            digest.update("".join(f"{size}\n" for size in sizes).encode())
    digest.update("\n".join(notes).encode())
    return digest.hexdigest()


def _size(path: str) -> int:
    """Returns the size of a file in bytes; -1 if it is missing, which its reader reports."""
    try:
        return epath.Path(path).stat().length if "://" in path else os.stat(path).st_size
    except OSError:
        return -1
