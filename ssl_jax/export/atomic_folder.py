"""Replaces a folder atomically."""

import contextlib
import os
import pathlib
import shutil
from collections.abc import Iterator

from ssl_jax.errors import CANNOT_CREATE, IO_ERROR, Fault
from ssl_jax.jobs.files import sync

FULL = 2**20  # bytes; a disk with less free space counts as full


@contextlib.contextmanager
def replace_folder(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields an empty folder that replaces `folder` when the block ends without an exception.

    If the process dies, the old contents are still at `folder`. Between two renames they are in a
    hidden folder beside it, from which the next call restores them. Only one process may call this
    at a time.

    Raises:
      Fault: with code IO_ERROR if the disk is full or a file cannot be written, and with code
        CANNOT_CREATE if one of the folders is a link.
    """
    new, old = _temporary(folder)
    for path in (folder, new, old):
        refuse_link(path)
    try:
        recover(folder)
        new.mkdir()
        yield new
        _sync(new)
        if folder.exists():
            os.replace(folder, old)
        os.replace(new, folder)
        sync(folder.parent)
    except Fault:
        raise
    except Exception as error:
        # Orbax and TensorFlow report a full disk with their own exceptions.
        if not isinstance(error, OSError) and _free_bytes(folder.parent) > FULL:
            raise
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise Fault(
            f"cannot write {folder}: {reason}. An earlier export was kept. Free disk space there, "
            "or pass another folder as --out",
            IO_ERROR,
        ) from error
    finally:
        with contextlib.suppress(OSError):
            recover(folder)


def refuse_link(path: pathlib.Path) -> None:
    """Checks that an export at `path` changes no other place: a foreign workdir may hold links.

    Raises:
      Fault: with code CANNOT_CREATE if `path` is a link.
    """
    if path.is_symlink():
        message = f"{path} is a link, and an export is not written through a link. Remove the link"
        raise Fault(f"{message}, or pass another folder as --out", CANNOT_CREATE)


def require_space(folder: pathlib.Path, size: int) -> None:
    """Checks that the disk of `folder` has space for `size` bytes and a reserve of 20 %.

    Raises:
      Fault: with code IO_ERROR if it has not.
    """
    needed, free = int(1.2 * size) + FULL, _free_bytes(folder)
    if free < needed:
        raise Fault(
            f"{folder}: an export needs {needed / 2**20:,.0f} MiB, but {free / 2**20:,.0f} MiB are "
            "free. Free disk space there, or pass another folder as --out",
            IO_ERROR,
        )


def _free_bytes(folder: pathlib.Path) -> int:
    return shutil.disk_usage(folder).free


def _temporary(folder: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """Returns the hidden folders beside `folder` for its new and its old contents."""
    return folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")


def recover(*folders: pathlib.Path) -> None:
    """Deletes the hidden folders that `replace_folder` uses, whether it finished or not.

    If a folder was moved away and has no new contents yet, the old ones are restored.
    """
    for folder in folders:
        new, old = _temporary(folder)
        if folder.exists() or old.is_symlink():
            _remove(old)
        elif old.exists():
            os.replace(old, folder)
        _remove(new)


def _remove(folder: pathlib.Path) -> None:
    """Removes a folder, or a link to one without what it leads to."""
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder, ignore_errors=True)


def _sync(folder: pathlib.Path) -> None:
    for path in (*folder.rglob("*"), folder):
        sync(path)
