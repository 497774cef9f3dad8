"""Writes and reads local files; every file of this package is written by this module.

A workdir may come from anybody, so no function writes through a link in it. Files that are
replaced are written atomically: a reader sees the old content or the new content, never a part.
Standard library only: the supervisor imports neither JAX nor a file-system library.
"""

import contextlib
import errno
import os
import pathlib
import re
import secrets
import stat
import time
from collections.abc import Iterator
from typing import BinaryIO, TextIO

from ssl_jax.errors import CANNOT_CREATE, IO_ERROR, Fault

TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")  # names of the files of `atomic_write`
STALE_AFTER = 3600  # seconds after which no writer still uses its temporary file


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str], *, durable: bool = True) -> Iterator[BinaryIO]:
    """Opens a temporary file next to `path` and renames it to `path` when the block succeeds.

    If the process dies at any moment, `path` has its old content or its new content. If the block
    raises, `path` keeps its old content. Each call creates a temporary file with a unique name, so
    two writers of one path never mix their content; the last rename wins. If `path` is a link, the
    new file replaces the link. A process killed inside the block leaves its temporary file,
    `.NAME.RANDOM.tmp`, which `remove_stale` removes.

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


def write(path: str | os.PathLike[str], content: str | bytes, *, durable: bool = True) -> None:
    """Writes a file by `atomic_write`; text is written in UTF-8, with lone surrogates escaped."""
    with atomic_write(path, durable=durable) as file:
        data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
        file.write(data)


def append(path: str | os.PathLike[str]) -> TextIO:
    """Opens a text file to add to its end and to read it; creates it if it is missing.

    Raises:
      Fault: CANNOT_CREATE if `path` is a link or anything else than a regular file.
      OSError: if the folder is missing or not writable.
    """
    errors = "backslashreplace"  # reading and writing never fail for a character
    try:
        return open(path, "a+", encoding="utf-8", errors=errors, opener=_open_regular)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO):
            raise
        raise _not_a_file(path) from error


def _open_regular(path: str, flags: int) -> int:
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.ENXIO, "not a regular file", path)
    return descriptor


def refuse_link(path: str | os.PathLike[str]) -> None:
    """Raises a Fault with CANNOT_CREATE if a file that will be read and replaced is a link.

    A replaced file has the content of the old one. Through a link, a command would copy a file of
    this machine into the workdir.
    """
    if os.path.islink(path):
        raise _not_a_file(path)


def _not_a_file(path: str | os.PathLike[str]) -> Fault:
    message = f"refused to write {os.fspath(path)}: it is a link or a special file. Remove it"
    return Fault(message, CANNOT_CREATE)


def inside(root: str | os.PathLike[str], name: str | os.PathLike[str]) -> pathlib.Path:
    """Returns the folder `root`/`name`, if it really lies inside `root`. `root` may be a link.

    Raises:
      Fault: CANNOT_CREATE if the name, such as "../name", or a link leads out of `root`.
    """
    path, real = pathlib.Path(root, name), os.path.realpath(root)
    if os.path.commonpath([real, os.path.realpath(path)]) != real:
        if ".." in path.parts:
            message = f"refused to write into {path}: it lies outside {os.fspath(root)}"
            raise Fault(f"{message}. Give a name without '..', or an absolute path", CANNOT_CREATE)
        raise Fault(
            f"refused to write into {path}: it is a link out of {os.fspath(root)}. Remove the "
            "link, or move the whole folder and make that a link",
            CANNOT_CREATE,
        )
    return path


def write_fault(message: str, error: OSError) -> Fault:
    """Returns the Fault for a file that cannot be written.

    Its code is IO_ERROR if the disk is full or failing, and CANNOT_CREATE otherwise, for example
    without permission.
    """
    disk = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
    return Fault(f"{message} ({error})", IO_ERROR if error.errno in disk else CANNOT_CREATE)


def remove_stale(folder: str | os.PathLike[str]) -> None:
    """Removes what killed calls of `atomic_write` left in a workdir and its subfolders."""
    subfolders = [e.path for e in os.scandir(folder) if e.is_dir(follow_symlinks=False)]
    for place in (folder, *subfolders):
        for entry in os.scandir(place):
            if TEMPORARY.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                with contextlib.suppress(OSError):
                    if time.time() - entry.stat(follow_symlinks=False).st_mtime > STALE_AFTER:
                        os.unlink(entry.path)


def read(path: str | os.PathLike[str], limit: int = 2**30) -> bytes:
    """Returns the content of a regular file.

    Raises:
      OSError: if the file is missing, no regular file (a FIFO would block), or larger than `limit`
        bytes.
    """
    with open(path, "rb", opener=lambda p, flags: os.open(p, flags | os.O_NONBLOCK)) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
        if status.st_size > limit:
            raise OSError(errno.EFBIG, f"larger than {limit:,} bytes", os.fspath(path))
        return file.read()


def sync(path: str | os.PathLike[str]) -> None:
    """Waits until the content of a local file, or a folder's list of names, is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
