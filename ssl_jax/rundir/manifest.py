"""The manifests of checkpoints: which steps exist, and whether their files are intact.

Knows files alone, neither JAX nor Orbax. The checksums are against accidents (flipped bits, full
disks, copies cut short); against a forged checkpoint stands only that nothing outside its folder
is ever opened.
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

FORMAT = 1
NAME = "MANIFEST.json"
QUARANTINE = "quarantine"
STEP = re.compile(r"0|[1-9][0-9]*")
TEMPORARY = re.compile(r"\d+\.orbax-checkpoint-tmp")


class Damage(Exception):
    """A step disagrees with its manifest; an older step may be good."""


def write(folder: epath.Path, content: dict[str, Any]) -> None:
    """Writes `content` and the description of every file; once this returns the step exists.

    Raises:
      Fault: BAD_CHECKPOINT for links and special files.
      OSError: when the disk is full.
    """
    found = dict(files(folder))
    described = {}
    for name, path in found.items():
        described[name] = {"size": path.stat().length, "sha256": _digest(path)}
        if not workdir.is_remote(path):
            sync(path)
    if not workdir.is_remote(folder):
        for parent in {path.parent for path in found.values()}:
            sync(parent)
    manifest = {"format": FORMAT, **content, "files": described}
    workdir.write_json(folder / NAME, {**manifest, "seal": _seal(manifest)})
    if not workdir.is_remote(folder):
        sync(folder.parent)


def verify(folder: epath.Path, *, hashes: bool = True) -> dict[str, Any]:
    """Returns the manifest of a step that agrees with it: sizes first, then sha256 in parallel.

    Files that the manifest does not name are ignored.

    Args:
      hashes: False compares sizes alone.

    Raises:
      Damage: with the first thing that is wrong.
      Fault: BAD_CHECKPOINT for a newer format, links, special files and names that leave `folder`.
      OSError: when a file that exists cannot be read.
    """
    found = dict(files(folder))  # first, since opening a planted FIFO would wait for ever
    try:
        manifest = json.loads((folder / NAME).read_text())
        seal = manifest.pop("seal")
        if seal != _seal(manifest):
            raise Damage(f"{NAME} (checksum mismatch)")
        return _compare(folder, manifest, found, hashes)
    except FileNotFoundError as error:
        raise Damage(f"{pathlib.Path(error.filename or NAME).name} is missing") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damage(f"{NAME} is not a manifest ({type(error).__name__})") from error


def _compare(
    folder: epath.Path, manifest: dict[str, Any], found: dict[str, epath.Path], hashes: bool
) -> dict[str, Any]:
    if manifest["format"] > FORMAT:
        raise Fault(
            f"{folder} was written by format {manifest['format']}, this build reads <= {FORMAT}; "
            "use the version of ssl_jax that wrote it, or a newer one",
            BAD_CHECKPOINT,
        )
    if str(manifest["step"]) != folder.name:
        raise Damage(f"{NAME} is of step {manifest['step']}")
    for name, want in manifest["files"].items():
        pure = pathlib.PurePosixPath(name)
        if pure.is_absolute() or ".." in pure.parts:
            raise Fault(f"refused {folder}: {name!r} leaves the checkpoint", BAD_CHECKPOINT)
        if name not in found:
            raise Damage(f"{name} is missing")
        size = found[name].stat().length
        if size != want["size"]:
            raise Damage(f"{name} (size {readable(size)}, expected {readable(want['size'])})")
    if hashes:
        paths = [found[name] for name in manifest["files"]]
        with concurrent.futures.ThreadPoolExecutor() as pool:
            digests = pool.map(_digest, paths)
            for (name, want), digest in zip(manifest["files"].items(), digests, strict=True):
                if digest != want["sha256"]:
                    raise Damage(f"{name} (checksum mismatch)")
    return manifest


def files(folder: epath.Path) -> Iterator[tuple[str, epath.Path]]:
    """(name relative to `folder`, path) of every file below but the manifest.

    Raises:
      Fault: BAD_CHECKPOINT at anything that is neither a regular file nor a folder.
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
    # Orbax follows links, so a link in a downloaded checkpoint would read any file of the host.
    if workdir.is_remote(path):
        return
    mode = os.lstat(path).st_mode
    if stat.S_ISLNK(mode):
        raise Fault(f"refused {path}: a link leaves the checkpoint", BAD_CHECKPOINT)
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise Fault(f"refused {path}: neither a file nor a folder", BAD_CHECKPOINT)


def _digest(path: epath.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _seal(manifest: dict[str, Any]) -> str:
    """sha256 of the manifest's canonical JSON; the same in every format, so it is judged first."""
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def steps(directory: epath.Path) -> list[int]:
    """The steps with a manifest, oldest first; whether they are intact is not looked at."""
    return [int(p.name) for p in _step_folders(directory) if (p / NAME).exists()]


def _step_folders(directory: epath.Path) -> list[epath.Path]:
    if not directory.exists():
        return []
    folders = [p for p in directory.iterdir() if STEP.fullmatch(p.name) and p.is_dir()]
    return sorted(folders, key=lambda p: int(p.name))


def newest_intact(directory: epath.Path, *, repair: bool) -> int | None:
    """The newest step whose files agree with its manifest; None where no step exists.

    Args:
      repair: move the damaged newer steps to `quarantine/` and remove leftovers, naming each.

    Raises:
      Fault: BAD_CHECKPOINT when steps exist and all are damaged, or for what `verify` refuses.
      OSError: when the disk cannot be read.
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
        # None is moved: the same command again must not find an empty folder and start anew.
        raise Fault(
            f"no intact checkpoint in {directory}:\n  "
            + "\n  ".join(damaged.values())
            + "\nbring one back from a copy, or start anew in another --workdir",
            BAD_CHECKPOINT,
        )
    for step, reason in damaged.items():
        logging.warning("%s; using step %d", reason, newest)
        if repair:
            _set_aside(directory, step)
    if repair:
        for leftover in leftovers(directory):
            logging.warning("removing %s, left by an unfinished save", leftover)
            leftover.rmtree()
    return newest


def leftovers(directory: epath.Path) -> list[epath.Path]:
    """What a killed save or deletion leaves: Orbax's temporaries and steps without a manifest."""
    if not directory.exists():
        return []
    temporary = [p for p in directory.iterdir() if TEMPORARY.match(p.name)]
    return temporary + [p for p in _step_folders(directory) if not (p / NAME).exists()]


def _set_aside(directory: epath.Path, step: int) -> None:
    folder = directory / QUARANTINE
    folder.mkdir(exist_ok=True)
    taken = {p.name for p in folder.iterdir()}
    name = next(n for i in range(len(taken) + 1) if (n := f"{step}.{i}") not in taken)
    (directory / str(step)).rename(folder / name)


def delete_old(directory: epath.Path, *, keep: int) -> None:
    """Deletes all but the newest `keep` whole steps; damaged ones stay and do not count."""
    whole = []
    for step in steps(directory):
        try:
            verify(directory / str(step), hashes=False)
            whole.append(directory / str(step))
        except (Damage, Fault):
            pass  # the next restore judges it
    for folder in whole[:-keep]:
        # The manifest goes first, so that a half-deleted step does not exist.
        (folder / NAME).unlink()
        folder.rmtree()


def readable(size: float) -> str:
    """A number of bytes for a message: 0 B, 121 kB, 3.2 GB."""
    for unit in ("B", "kB", "MB"):
        if size < 999.5:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
