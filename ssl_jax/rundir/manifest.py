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
# Folders of unfinished saves; Orbax appends its own ending while it writes.
TEMPORARY = re.compile(r"\d+\.(tmp|orbax-checkpoint-tmp)")


class Damage(Exception):
    """A step does not match its manifest. An older step may be intact."""


def write(folder: epath.Path, content: dict[str, Any]) -> None:
    """Writes the manifest of a step, after all files of the step are on disk.

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


def publish(temporary: epath.Path, folder: epath.Path) -> None:
    """Gives a step that has its manifest its final name. The step exists from this moment.

    Raises:
      OSError: if the step exists already.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} already exists")
    temporary.rename(folder)
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
    try:
        paths = dict(files(folder))  # first, because opening a planted FIFO would block forever
        manifest = json.loads((folder / NAME).read_text())
        seal = manifest.pop("seal")
        if seal != _seal(manifest):
            raise Damage(f"{NAME} (checksum mismatch)")
        return _compare(folder, manifest, paths, hashes)
    except FileNotFoundError as error:
        raise Damage(f"{pathlib.Path(error.filename or NAME).name} is missing") from error
    except IsADirectoryError as error:
        raise Damage(f"{NAME} is a folder") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
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
    """Returns the steps that have a manifest, oldest first, without verifying them.

    Raises:
      Fault: BAD_CHECKPOINT if `directory` is a file or a link.
    """
    return [int(p.name) for p in _step_folders(directory) if (p / NAME).exists()]


def _step_folders(directory: epath.Path) -> list[epath.Path]:
    folders = [p for p in _content(directory) if STEP.fullmatch(p.name) and p.is_dir()]
    return sorted(folders, key=lambda p: int(p.name))


def _content(directory: epath.Path) -> list[epath.Path]:
    if workdir.is_remote(directory):
        return list(directory.iterdir()) if directory.exists() else []
    if not os.path.lexists(directory):
        return []
    # A link without target would look like a run without checkpoints.
    if os.path.islink(directory) or not directory.is_dir():
        raise Fault(
            f"refused {directory}: it must be a folder, not a link or a file. Move the folder of "
            "the checkpoints to this place, or start a new run in another --workdir",
            BAD_CHECKPOINT,
        )
    return list(directory.iterdir())


def newest_intact(directory: epath.Path, *, repair: bool) -> int | None:
    """Returns the newest step whose files match its manifest, or None if no step exists.

    Logs a warning for each newer step that is damaged. Without an intact step, nothing is moved or
    deleted; otherwise the same command would find no step and start a new run.

    Args:
      directory: folder of all steps.
      repair: move damaged newer steps to `quarantine/` and remove what unfinished saves and
        deletions left behind, with a warning for each.

    Raises:
      Fault: BAD_CHECKPOINT if steps exist but all are damaged, if `verify` refuses a step, or if
        `directory` is a file or a link.
      OSError: if the disk cannot be read.
    """
    while True:
        listed = steps(directory)
        newest, damaged = _search(directory)
        # A running training may have replaced all steps by newer ones during the search.
        if newest is not None or steps(directory) == listed:
            break
    if damaged and newest is None:
        raise Fault(
            f"no intact checkpoint in {directory}:\n  "
            + "\n  ".join(damaged.values())
            + "\nNothing was changed. Restore a step from a copy, or start a new run in another "
            "--workdir",
            BAD_CHECKPOINT,
        )
    for step, reason in damaged.items():
        logging.warning("%s; using step %d", reason, newest)
        if repair:
            _quarantine(directory, step)
    if repair:
        for leftover in leftovers(directory):
            logging.warning("removing %s, left by an unfinished save or deletion", leftover)
            leftover.rmtree()
    return newest


def _search(directory: epath.Path) -> tuple[int | None, dict[int, str]]:
    """Returns the newest intact step, or None, and the reasons why newer steps are damaged."""
    damaged: dict[int, str] = {}
    for folder in reversed(_step_folders(directory)):
        try:
            verify(folder)
            return int(folder.name), damaged
        except Damage as damage:
            damaged[int(folder.name)] = f"step {folder.name} damaged: {damage}"
    return None, damaged


def unfinished(directory: epath.Path) -> list[epath.Path]:
    """Returns the temporary folders of saves that were killed."""
    return [p for p in _content(directory) if TEMPORARY.match(p.name)]


def leftovers(directory: epath.Path) -> list[epath.Path]:
    """Returns what killed saves and deletions left: temporary folders, steps without manifest.

    A step without manifest is half deleted only if a newer step is intact; the caller ensures it.
    """
    return unfinished(directory) + [p for p in _step_folders(directory) if not (p / NAME).exists()]


def _quarantine(directory: epath.Path, step: int) -> None:
    folder = directory / QUARANTINE
    _refuse_link(folder)
    folder.mkdir(exist_ok=True)
    taken = {p.name for p in folder.iterdir()}
    # The same step can be damaged more than once: 400.0, 400.1, ...
    name = next(n for i in range(len(taken) + 1) if (n := f"{step}.{i}") not in taken)
    (directory / str(step)).rename(folder / name)


def _refuse_link(folder: epath.Path) -> None:
    if not workdir.is_remote(folder) and os.path.islink(folder):
        message = f"refused to move a damaged step to {folder}: it is a link. Remove the link"
        raise Fault(message, BAD_CHECKPOINT)


def delete_old(directory: epath.Path, *, keep: int) -> None:
    """Deletes all intact steps except the newest `keep`, and what earlier deletions left.

    Damaged steps are neither deleted nor counted. Only sizes are checked, not hashes. Call it after
    a save, when a new step is intact and no save is running.

    Raises:
      OSError: if a step cannot be deleted; the others are deleted. The next call tries again.
    """
    intact = []
    for step in steps(directory):
        try:
            verify(directory / str(step), hashes=False)
            intact.append(directory / str(step))
        except (Damage, Fault):
            pass  # the next restore reports it
    failure = None
    for folder in [*intact[:-keep], *leftovers(directory)]:
        try:
            # The manifest goes first, so that a half-deleted step does not exist.
            (folder / NAME).unlink(missing_ok=True)
            folder.rmtree()
        except OSError as error:
            failure = error
    if failure is not None:
        raise failure


def format_bytes(size: float) -> str:
    """Formats a number of bytes for a message: 0 B, 121 kB, 3.2 GB."""
    for unit in ("B", "kB", "MB"):
        if size < 999.5:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
