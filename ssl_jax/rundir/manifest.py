"""Manifests of checkpoints: which steps exist, and whether their files are intact.

A manifest lists the size and sha256 of every file of a step. It detects accidents: flipped bits,
full disks, incomplete copies. It does not detect a forged checkpoint; against forgery, this module
only guarantees that no file outside the step's folder is opened. It uses neither JAX nor Orbax.
"""

import concurrent.futures
import hashlib
import json
import os
import pathlib
import re
import stat
from collections.abc import Iterator
from typing import Any

from absl import logging
from etils import epath

from ssl_jax.errors import BAD_CHECKPOINT, Fault
from ssl_jax.jobs.files import sync
from ssl_jax.rundir import workdir

FORMAT = 1  # version of the manifest; a newer one is refused
NAME = "MANIFEST.json"
QUARANTINE = "quarantine"  # folder for damaged steps, next to the steps
STEP = re.compile(r"0|[1-9][0-9]*")
TEMPORARY = re.compile(r"\d+\.orbax-checkpoint-tmp")


class Damage(Exception):
    """A step does not match its manifest. An older step may be intact."""


def write(folder: epath.Path, content: dict[str, Any]) -> None:
    """Writes the manifest of a step. The step exists from the moment this function returns.

    All files of the step are on disk before the manifest is written.

    Args:
      folder: folder of the step, with all its files.
      content: JSON-compatible entries of the manifest: "step", "config_hash", "leaves" and so on.
        This function adds "format", "files" and "seal".

    Raises:
      Fault: BAD_CHECKPOINT if the folder contains links or special files.
      OSError: if the disk is full.
    """
    paths = dict(files(folder))
    entries = {}
    for name, path in paths.items():
        entries[name] = {"size": path.stat().length, "sha256": _sha256(path)}
        if not workdir.is_remote(path):
            sync(path)
    if not workdir.is_remote(folder):
        for parent in {path.parent for path in paths.values()}:
            sync(parent)
    manifest = {"format": FORMAT, **content, "files": entries}
    workdir.write_json(folder / NAME, {**manifest, "seal": _seal(manifest)})
    if not workdir.is_remote(folder):
        sync(folder.parent)


def verify(folder: epath.Path, *, hashes: bool = True) -> dict[str, Any]:
    """Compares the files of a step with its manifest and returns the manifest.

    Sizes are compared first, then sha256 in parallel. Files that the manifest does not list are
    ignored.

    Args:
      folder: folder of the step.
      hashes: False compares only the sizes.

    Raises:
      Damage: with the first difference.
      Fault: BAD_CHECKPOINT for a newer format, for links or special files, and for names that
        point outside `folder`.
      OSError: if an existing file cannot be read.
    """
    paths = dict(files(folder))  # first, because opening a planted FIFO would block forever
    try:
        manifest = json.loads((folder / NAME).read_text())
        seal = manifest.pop("seal")
        if seal != _seal(manifest):
            raise Damage(f"{NAME} (checksum mismatch)")
        return _compare(folder, manifest, paths, hashes)
    except FileNotFoundError as error:
        raise Damage(f"{pathlib.Path(error.filename or NAME).name} is missing") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damage(f"{NAME} is not a manifest ({type(error).__name__})") from error


def _compare(
    folder: epath.Path, manifest: dict[str, Any], paths: dict[str, epath.Path], hashes: bool
) -> dict[str, Any]:
    if manifest["format"] > FORMAT:
        raise Fault(
            f"{folder} was written in checkpoint format {manifest['format']}, but this version of "
            f"ssl_jax reads formats up to {FORMAT}. Use the version that wrote it, or a newer one",
            BAD_CHECKPOINT,
        )
    if str(manifest["step"]) != folder.name:
        raise Damage(f"{NAME} belongs to step {manifest['step']}")
    for name, expected in manifest["files"].items():
        pure = pathlib.PurePosixPath(name)
        if pure.is_absolute() or ".." in pure.parts:
            raise Fault(f"refused {folder}: {name!r} is outside the checkpoint", BAD_CHECKPOINT)
        if name not in paths:
            raise Damage(f"{name} is missing")
        size = paths[name].stat().length
        if size != expected["size"]:
            sizes = f"size {format_bytes(size)}, expected {format_bytes(expected['size'])}"
            raise Damage(f"{name} ({sizes})")
    if hashes:
        listed = [paths[name] for name in manifest["files"]]
        with concurrent.futures.ThreadPoolExecutor() as pool:
            digests = pool.map(_sha256, listed)
            for (name, expected), digest in zip(manifest["files"].items(), digests, strict=True):
                if digest != expected["sha256"]:
                    raise Damage(f"{name} (checksum mismatch)")
    return manifest


def files(folder: epath.Path) -> Iterator[tuple[str, epath.Path]]:
    """Yields (name relative to `folder`, path) of every file in the folder, without the manifest.

    Raises:
      Fault: BAD_CHECKPOINT at a path that is neither a regular file nor a folder.
    """
    _refuse_special(folder)
    for path in sorted(folder.iterdir()):
        _refuse_special(path)
        if path.is_dir():
            for name, below in files(path):
                yield f"{path.name}/{name}", below
        elif path.name != NAME:
            yield path.name, path


def _refuse_special(path: epath.Path) -> None:
    # Orbax follows links, so a link in a downloaded checkpoint could read any file of the host.
    if workdir.is_remote(path):
        return
    mode = os.lstat(path).st_mode
    if stat.S_ISLNK(mode):
        raise Fault(f"refused {path}: a checkpoint must not contain links", BAD_CHECKPOINT)
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise Fault(f"refused {path}: neither a regular file nor a folder", BAD_CHECKPOINT)


def _sha256(path: epath.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _seal(manifest: dict[str, Any]) -> str:
    """Returns the sha256 of the manifest's canonical JSON.

    The seal is computed in the same way in every format, so it is checked before the format.
    """
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def steps(directory: epath.Path) -> list[int]:
    """Returns the steps that have a manifest, oldest first, without verifying them."""
    return [int(p.name) for p in _step_folders(directory) if (p / NAME).exists()]


def _step_folders(directory: epath.Path) -> list[epath.Path]:
    if not directory.exists():
        return []
    folders = [p for p in directory.iterdir() if STEP.fullmatch(p.name) and p.is_dir()]
    return sorted(folders, key=lambda p: int(p.name))


def newest_intact(directory: epath.Path, *, repair: bool) -> int | None:
    """Returns the newest step whose files match its manifest, or None if no step exists.

    Logs a warning for each newer step that is damaged.

    Args:
      directory: folder of all steps.
      repair: move damaged newer steps to `quarantine/` and remove what unfinished saves left
        behind, with a warning for each.

    Raises:
      Fault: BAD_CHECKPOINT if steps exist but all are damaged, or if `verify` refuses a step.
      OSError: if the disk cannot be read.
    """
    damaged: dict[int, str] = {}
    newest = None
    for step in reversed(steps(directory)):
        try:
            verify(directory / str(step))
            newest = step
            break
        except Damage as damage:
            damaged[step] = f"step {step} damaged: {damage}"
    if damaged and newest is None:
        # Nothing is moved. Otherwise the same command would find no step and start a new run.
        raise Fault(
            f"no intact checkpoint in {directory}:\n  "
            + "\n  ".join(damaged.values())
            + "\nRestore a step from a copy, or start a new run in another --workdir",
            BAD_CHECKPOINT,
        )
    for step, reason in damaged.items():
        logging.warning("%s; using step %d", reason, newest)
        if repair:
            _quarantine(directory, step)
    if repair:
        for leftover in leftovers(directory):
            logging.warning("removing %s, left by an unfinished save", leftover)
            leftover.rmtree()
    return newest


def leftovers(directory: epath.Path) -> list[epath.Path]:
    """Returns what killed saves and deletions left: temporary folders, steps without manifest."""
    if not directory.exists():
        return []
    temporary = [p for p in directory.iterdir() if TEMPORARY.match(p.name)]
    return temporary + [p for p in _step_folders(directory) if not (p / NAME).exists()]


def _quarantine(directory: epath.Path, step: int) -> None:
    folder = directory / QUARANTINE
    folder.mkdir(exist_ok=True)
    taken = {p.name for p in folder.iterdir()}
    # The same step can be damaged more than once: 400.0, 400.1, ...
    name = next(n for i in range(len(taken) + 1) if (n := f"{step}.{i}") not in taken)
    (directory / str(step)).rename(folder / name)


def delete_old(directory: epath.Path, *, keep: int) -> None:
    """Deletes all intact steps except the newest `keep`.

    Damaged steps are neither deleted nor counted. Only sizes are checked, not hashes.
    """
    intact = []
    for step in steps(directory):
        try:
            verify(directory / str(step), hashes=False)
            intact.append(directory / str(step))
        except (Damage, Fault):
            pass  # the next restore reports it
    for folder in intact[:-keep]:
        # The manifest goes first, so that a half-deleted step does not exist.
        (folder / NAME).unlink()
        folder.rmtree()


def format_bytes(size: float) -> str:
    """Formats a number of bytes for a message: 0 B, 121 kB, 3.2 GB."""
    for unit in ("B", "kB", "MB"):
        if size < 999.5:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
