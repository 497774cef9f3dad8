"""Replaces a folder atomically."""

import contextlib
import os
import pathlib
import shutil
from collections.abc import Iterator

from ssl_jax.errors import IO_ERROR, Fault
from ssl_jax.jobs.files import sync

FULL = 2**20  # bytes; a disk with less free space counts as full


@contextlib.contextmanager
def replace_folder(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields an empty folder that replaces `folder` when the block ends without an exception.

    If the process dies, the old contents are still at `folder`. Between two renames they are in a
    hidden folder beside it, from which the next call restores them. Only one process may call this
    at a time.

    Raises:
      Fault: with code IO_ERROR if the disk is full or a file cannot be written.
    """
    new, old = (folder.with_name(f".{folder.name}.{end}") for end in ("new", "old"))
    try:
        _recover(folder, new, old)
        new.mkdir()
        yield new
        _sync(new)
        if folder.exists():
            os.replace(folder, old)
        os.replace(new, folder)
        sync(folder.parent)
        shutil.rmtree(old, ignore_errors=True)
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
        shutil.rmtree(new, ignore_errors=True)


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


def _recover(folder: pathlib.Path, new: pathlib.Path, old: pathlib.Path) -> None:
    """Restores the old contents if an earlier process died, and deletes its unfinished folder."""
    if old.exists():
        if folder.exists():
            shutil.rmtree(old)
        else:
            os.replace(old, folder)
    if new.exists():
        shutil.rmtree(new)


def _sync(folder: pathlib.Path) -> None:
    for path in (*folder.rglob("*"), folder):
        sync(path)
