"""The workdir of a run: creates it, locks it for one writer, and writes its files atomically.

Readers (`evaluate`, `report`, `export`) need no lock, because every file appears whole.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from typing import Any

from absl import logging
from etils import epath

from ssl_jax.errors import CANNOT_CREATE, IO_ERROR, Fault
from ssl_jax.jobs import files, json_files


def is_remote(path: epath.PathLike) -> bool:
    """Returns True for paths in cloud storage, such as `gs://bucket/run`.

    Cloud storage has no locks, links or fsync.
    """
    return "://" in os.fspath(path)


def absolute(path: epath.PathLike) -> epath.Path:
    """Returns the absolute form of a local path; remote paths stay unchanged."""
    # Orbax refuses a relative path, but only later, in its saving thread.
    return epath.Path(path if is_remote(path) else os.path.abspath(os.path.expanduser(path)))


def is_run(path: epath.PathLike) -> bool:
    """Returns True if `path` is the workdir of a run, False for exported or foreign weights."""
    folder = epath.Path(path)
    # Some exports have a config.json too, in their consumer's format, next to one of these files.
    exported = ("check.json", "model.safetensors")
    return (folder / "config.json").exists() and not any((folder / n).exists() for n in exported)


def exists(path: epath.PathLike) -> bool:
    """Returns True if `path` is a file, a folder, or the file prefix of a TensorFlow checkpoint."""
    return os.path.exists(path) or os.path.exists(f"{os.fspath(path)}.index")


@dataclasses.dataclass(frozen=True)
class Workdir:
    """Reads and writes the JSON files of a workdir. Each file holds an object.

    Args:
      path: absolute path of the folder.
    """

    path: epath.Path

    def read_json(self, name: str) -> dict[str, Any] | None:
        """Returns the object in a JSON file, or None if the file does not exist.

        Args:
          name: path of the file relative to the workdir.

        Raises:
          Fault: IO_ERROR if the file is not JSON, or not a regular file.
        """
        path = self.path / name
        try:
            return json_files.read_object(path)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise Fault(f"{path} is not JSON: {error}. Restore or remove it", IO_ERROR) from error

    def write_json(self, name: str, value: Any) -> None:
        """Writes a JSON file of the workdir with the function `write_json`."""
        write_json(self.path / name, value)


@contextlib.contextmanager
def open_workdir(path: epath.PathLike, flag: str = "workdir") -> Iterator[Workdir]:
    """Creates the workdir and holds its lock while the block runs.

    In a job of several processes, only process 0 calls this function. The kernel's lock on `.lock`
    is released when the process dies in any way. Cloud storage has no locks, so two runs that
    write to the same remote folder are not detected.

    Args:
      path: the workdir; missing parent folders are created.
      flag: name of the flag that gave `path`, for error messages.

    Yields:
      The workdir.

    Raises:
      Fault: CANNOT_CREATE if `path` is a file, if the folder cannot be created or written, or if
        another process holds the lock.
    """
    folder = absolute(path)
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not is_remote(folder):
                stack.enter_context(_locked(folder, flag))
        except OSError as error:
            raise Fault(
                f"cannot write the {flag} {folder}: {error.strerror or error}. "
                f"Pass a writable folder as --{flag}",
                CANNOT_CREATE,
            ) from error
        yield Workdir(folder)


@contextlib.contextmanager
def _locked(folder: epath.Path, flag: str) -> Iterator[None]:
    # The file is not emptied before: it names the run that may still hold the lock.
    with files.append(folder / ".lock") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read(200).strip() or "by another process"
            raise Fault(
                f"the {flag} {folder} is in use {holder}. Wait for that run or choose another "
                f"--{flag}",
                CANNOT_CREATE,
            ) from error
        except OSError as error:
            logging.warning(
                "the file system of %s has no file locks (%s): a second run in this workdir would "
                "not be detected",
                folder,
                error.strerror,
            )
        file.truncate(0)
        file.write(f"by pid {os.getpid()} on host {socket.gethostname()} since {time.ctime()}\n")
        file.flush()
        yield


def write_json(path: epath.PathLike, value: Any) -> None:
    """Writes a JSON file atomically, with sorted keys.

    Raises:
      ValueError: for NaN or infinity, which JSON does not have.
      OSError: if the disk is full or the folder is missing.
    """
    text = json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n"
    write_text(path, text)


def write_text(path: epath.PathLike, text: str) -> None:
    """Writes a text file atomically, in UTF-8.

    Raises:
      OSError: if the disk is full or the folder is missing.
    """
    path = epath.Path(path)
    if is_remote(path):
        path.write_text(text)  # cloud storage publishes an object only when it is complete
        return
    files.write(path, text)
