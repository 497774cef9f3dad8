"""The folder of a run: made, claimed by one writer, written atomically.

Readers (`evaluate`, `report`, `export`) take no lock: every file appears whole, by rename.
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
from ssl_jax.jobs.files import atomic_write


def is_remote(path: epath.PathLike) -> bool:
    """True for `gs://bucket/run` and the like, where files have no locks, links or fsync."""
    return "://" in os.fspath(path)


def absolute(path: epath.PathLike) -> epath.Path:
    """The absolute form of a local path; a path with a scheme stays as it is."""
    # Orbax refuses a relative path, but only inside its saving thread.
    return epath.Path(path if is_remote(path) else os.path.abspath(os.path.expanduser(path)))


def is_run(path: epath.PathLike) -> bool:
    """Whether a run lies at `path`, rather than weights that left one or never were in one."""
    folder = epath.Path(path)
    # Some exports have a config.json too, their consumer's, but beside a model or a check.
    exported = ("check.json", "model.safetensors")
    return (folder / "config.json").exists() and not any((folder / n).exists() for n in exported)


def exists(path: epath.PathLike) -> bool:
    """Whether there is a file or folder, or TensorFlow's checkpoint, which is a prefix of files."""
    return os.path.exists(path) or os.path.exists(f"{os.fspath(path)}.index")


@dataclasses.dataclass(frozen=True)
class Workdir:
    """An absolute path, and the JSON files below it."""

    path: epath.Path

    def read_json(self, name: str) -> Any:
        """The contents of a file, None where there is none; raises Fault if it is not JSON."""
        path = self.path / name
        try:
            return json.loads(path.read_text())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise Fault(f"{path} is not JSON: {error}; restore or remove it", IO_ERROR) from error

    def write_json(self, name: str, value: Any) -> None:
        """See the function of this name."""
        write_json(self.path / name, value)


@contextlib.contextmanager
def open_workdir(path: epath.PathLike, flag: str = "workdir") -> Iterator[Workdir]:
    """Makes the workdir and holds it as its only writer; of several processes, only 0 opens it.

    The lock is the kernel's, on `.lock`: it ends with the process however that dies. Remote paths
    have none, so two runs in one bucket folder go undetected there.

    Args:
      flag: which named the folder, for people.

    Raises:
      Fault: CANNOT_CREATE when it is a file, cannot be made or written, or is in use.
    """
    folder = absolute(path)
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not is_remote(folder):
                stack.enter_context(_locked(folder, flag))
        except OSError as error:
            raise Fault(
                f"cannot write the {flag} {folder}: {error.strerror or error}; "
                f"give --{flag} a folder that can be created and written",
                CANNOT_CREATE,
            ) from error
        yield Workdir(folder)


@contextlib.contextmanager
def _locked(folder: epath.Path, flag: str) -> Iterator[None]:
    # Opened for appending, which does not empty it: until it is locked it is another run's.
    with open(folder / ".lock", "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip() or "by another process"
            raise Fault(
                f"the {flag} {folder} is in use {holder}; wait for that run or choose another "
                f"--{flag}",
                CANNOT_CREATE,
            ) from error
        except OSError as error:
            logging.warning(
                "%s has no file locks (%s): a second run in this workdir would go undetected",
                folder,
                error.strerror,
            )
        file.truncate(0)
        file.write(f"by pid {os.getpid()} on host {socket.gethostname()} since {time.ctime()}\n")
        file.flush()
        yield


def write_json(path: epath.PathLike, value: Any) -> None:
    """Writes a JSON file so that, whenever the process dies, the old or the new file is there.

    Raises:
      ValueError: for NaN or infinity, which JSON does not have.
      OSError: when the disk is full or the folder is gone.
    """
    text = json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n"
    write_text(path, text)


def write_text(path: epath.PathLike, text: str) -> None:
    """As `write_json`, for any text."""
    path = epath.Path(path)
    if is_remote(path):
        path.write_text(text)  # an object appears whole or not at all
        return
    with atomic_write(path) as file:
        file.write(text.encode())
