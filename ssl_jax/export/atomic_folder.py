"""A folder that is replaced whole or not at all."""

import contextlib
import os
import pathlib
import shutil
from collections.abc import Iterator

from ssl_jax import workdir
from ssl_jax.errors import IO_ERROR, Fault

FULL = 2**20  # bytes: a disk with no more is full


@contextlib.contextmanager
def replaced(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """An empty folder beside `folder` that takes its place once the block has ended well.

    Whenever the process dies, the old contents are at `folder` or, between two renames, in its
    hidden sibling, from where the next call takes them back. One process at a time.

    Raises:
      Fault: IO_ERROR, when the disk is full or a file cannot be written.
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
        workdir.sync(folder.parent)
        shutil.rmtree(old, ignore_errors=True)
    except Fault:
        raise
    except Exception as error:
        # Orbax and TensorFlow tell of a full disk by exceptions of their own.
        if not isinstance(error, OSError) and _free(folder.parent) > FULL:
            raise
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise Fault(
            f"{folder} not written: {reason}; an earlier export stays. Make room there, or choose "
            "another folder by --out",
            IO_ERROR,
        ) from error
    finally:
        shutil.rmtree(new, ignore_errors=True)


def require_space(folder: pathlib.Path, size: int) -> None:
    """Raises Fault unless the disk of `folder` has room for `size` bytes and some more."""
    needed, free = int(1.2 * size) + FULL, _free(folder)
    if free < needed:
        raise Fault(
            f"{folder}: an export needs {needed / 2**20:,.0f} MiB, {free / 2**20:,.0f} MiB are "
            "free; make room there, or choose another folder by --out",
            IO_ERROR,
        )


def _free(folder: pathlib.Path) -> int:
    return shutil.disk_usage(folder).free


def _recover(folder: pathlib.Path, new: pathlib.Path, old: pathlib.Path) -> None:
    """Puts in order what a process that died in the middle left."""
    if old.exists():
        if folder.exists():
            shutil.rmtree(old)
        else:
            os.replace(old, folder)
    if new.exists():
        shutil.rmtree(new)


def _sync(folder: pathlib.Path) -> None:
    for path in (*folder.rglob("*"), folder):
        workdir.sync(path)
