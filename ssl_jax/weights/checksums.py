"""Checksums of an export: written into its check.json, verified before its weights are used.

check.json lists the size and sha256 of every file, and has a seal: the sha256 of its own contents.
They detect accidents, such as flipped bits, incomplete copies and renamed files. They do not detect
forgery, since a forger can compute them too. Against forgery, this module only guarantees that no
link leads out of the folder.
"""

import hashlib
import json
import pathlib
import stat
from collections.abc import Mapping
from typing import Any

from absl import logging

from ssl_jax.errors import BAD_DATA, Fault
from ssl_jax.weights import json_metadata, trees
from ssl_jax.weights.files.checks import quote

RECORD = "check.json"
CARD = "README.md"  # listed, but not verified: people may edit the model card


def seal(folder: pathlib.Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the contents of check.json: `record` with "files" and "seal" added.

    Args:
      folder: the export, with all its files except check.json.
      record: JSON-compatible values.

    Raises:
      Fault: BAD_DATA if the folder holds links or special files.
    """
    files = {name: _entry(path) for name, path in _files(folder).items()}
    sealed = {**record, "files": files}
    return {**sealed, "seal": _digest(sealed)}


def read_verified(folder: pathlib.Path) -> dict[str, Any]:
    """Returns the contents of check.json, after comparing the export in `folder` with it.

    The cost is one pass over the files. Logs a warning for an export that has no checksums because
    an older version wrote it.

    Raises:
      Fault: BAD_DATA if a file is missing, changed or not listed, or for links and special files.
    """
    present = _files(folder)
    if not (folder / RECORD).is_file():
        raise _damage(folder, [f"{RECORD} is missing"])
    record = json_metadata.read(folder / RECORD)
    if not {"files", "seal"} & record.keys():
        logging.warning(
            "%s is not verified: it has no checksums, because an older version of ssl_jax wrote it",
            folder,
        )
        return record
    try:
        if record.pop("seal", None) != _digest(record):
            raise _damage(folder, [f"{RECORD} has another checksum"])
        listed = {k: (int(v["size"]), str(v["sha256"])) for k, v in record["files"].items()}
    except (
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
        OverflowError,
        RecursionError,
    ) as error:
        raise _damage(folder, [f"{RECORD} does not list the files"]) from error
    if problems := _differences(listed, present):
        raise _damage(folder, problems)
    return record


def _differences(listed: dict[str, tuple[int, str]], present: dict[str, pathlib.Path]) -> list[str]:
    """Returns all differences in names and sizes or, if there are none, in contents."""
    names, found = listed.keys() - {CARD}, present.keys() - {CARD}
    problems = [f"{quote(name)} is missing" for name in sorted(names - found)]
    problems += [f"{quote(name)} is not part of it" for name in sorted(found - names)]
    for name in sorted(names & found):
        size, expected = present[name].stat().st_size, listed[name][0]
        if size != expected:
            problems.append(f"{quote(name)} has {size:,} bytes, not {expected:,}")
    return problems or [
        f"{quote(name)} has another checksum"
        for name in sorted(names)
        if _entry(present[name])["sha256"] != listed[name][1]
    ]


def _files(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Returns the files of an export by their name relative to `folder`, without check.json.

    Hidden files and folders at the top, which git and the Hugging Face Hub create, and Python's
    bytecode are left out: no reader opens them.
    """
    files = {}
    for path in sorted(folder.rglob("*")):
        name, mode = path.relative_to(folder), path.lstat().st_mode
        if stat.S_ISLNK(mode):  # Orbax would follow it to any file of this machine
            raise Fault(
                f"refused the export {folder}: {quote(str(name))} is a link, and exports must not "
                "contain links. Replace the link by a copy (`cp -RL` copies a whole folder)",
                BAD_DATA,
            )
        if stat.S_ISDIR(mode) or name.parts[0].startswith(".") or name.parts[0] == "__pycache__":
            continue
        if not stat.S_ISREG(mode):
            message = f"refused the export {folder}: {quote(str(name))} is neither a regular file"
            raise Fault(f"{message} nor a folder", BAD_DATA)
        if str(name) != RECORD:
            files[name.as_posix()] = path
    return files


def _entry(path: pathlib.Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"size": path.stat().st_size, "sha256": digest}


def _digest(record: Mapping[str, Any]) -> str:
    text = json.dumps(record, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _damage(folder: pathlib.Path, problems: list[str]) -> Fault:
    return Fault(
        f"the export {folder} is damaged: {trees.list_names(problems)}. Nothing was loaded. Export "
        "again, or copy or download the whole folder again (from git, with `git lfs pull`)",
        BAD_DATA,
    )
