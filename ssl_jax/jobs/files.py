"""Atomic writing of local files: a reader sees the old content or the new content, never a part.

Standard library only: the supervisor imports neither JAX nor a file-system library.
"""

import contextlib
import os
import pathlib
import secrets
from collections.abc import Iterator
from typing import BinaryIO


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str], *, durable: bool = True) -> Iterator[BinaryIO]:
    """Opens a temporary file next to `path` and renames it to `path` when the block succeeds.

    If the process dies at any moment, `path` has its old content or its new content. If the block
    raises, `path` keeps its old content. Each call creates a temporary file with a unique name, so
    two writers of one path never mix their content; the last rename wins. A process killed inside
    the block leaves its temporary file, `.NAME.RANDOM.tmp`.

    Args:
      path: local file in an existing folder. The new file gets the default permissions of the
        process.
      durable: wait until content and name are on disk, so that they survive a power failure.
        False suits files that are rewritten every few seconds.

    Yields:
      The temporary file, opened for writing bytes.

    Raises:
      OSError: if the disk is full, or if the folder is missing or not writable.
    """
    path = pathlib.Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    # `tempfile` would create the file with mode 0600, unreadable for other users.
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    if durable:
        sync(path.parent)


def sync(path: str | os.PathLike[str]) -> None:
    """Waits until the content of a local file, or a folder's list of names, is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
