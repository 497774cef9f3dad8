"""Metadata of a run: command, config hash, git revision, library versions, devices, data."""

import hashlib
import json
import platform
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from ssl_jax import config as configuration
from ssl_jax.rundir import versions

# An absolute path in a flag's value, or in an element of the value, up to its last part. The name
# of a home folder is the user's name.
_PARTS = r"""/(?:[^/,'"]*/)*"""
_HOME = r"""(?:~[^/,'"\s]*|/(?:home|Users)/[^/,'"]+)"""
_FOLDERS = re.compile(rf"""(?:^|(?<=[=,(\['"\s]))(?:{_HOME}(?:{_PARTS})?|{_PARTS})""")


def config_hash(config: ConfigDict) -> str:
    """Returns the sha256, in hex, of the identity fields of a config.

    Schedule fields and free fields (paths, logging, devices) do not change the hash.
    """
    flat = configuration.drop_implied(configuration.flatten(config))
    source = flat.get("data.source", "digits")
    identity = {k: _plain(v) for k, v in flat.items() if configuration.is_identity(k, source)}
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def _plain(value: Any) -> Any:
    """Gives equal values the same JSON: (0.2, 1) and (0.2, 1.0) configure the same run."""
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def collect(config: ConfigDict, mesh: Any, source: Any, verb: str) -> dict[str, Any]:
    """Returns the content of metadata.json. It names no user and no absolute path.

    Args:
      config: config of the run.
      mesh: jax.sharding.Mesh of the run.
      source: data source of the training images.
      verb: command that was started, such as "train".
    """
    devices = mesh.devices.flatten()
    return {
        "command": shlex.join(["python", "-m", f"ssl_jax.{verb}", *map(_shareable, sys.argv[1:])]),
        "config_hash": config_hash(config),
        "revision": _revision(),
        "python": platform.python_version(),
        "versions": versions.installed(),
        "platform": devices[0].platform,
        "device": devices[0].device_kind,
        "devices": len(devices),
        "processes": jax.process_count(),
        "mesh": dict(mesh.shape),
        "source": source.name,
        "train_images": source.size,
        "classes": len(source.classes),
        "files": source.identity(),
    }


def _shareable(argument: str) -> str:
    """Shortens absolute paths: --workdir=/data/anna/run becomes --workdir=.../run.

    Reports show metadata.json. Only config.json needs the paths: to resume and to evaluate.
    """
    return _FOLDERS.sub(".../", argument)


def _revision() -> str | None:
    """Returns the git revision, with "-dirty" if files differ from it; None outside a checkout."""
    here = Path(__file__).resolve().parents[2]
    # An installed package may lie inside another project's repository.
    if _git(here, "rev-parse", "--show-toplevel") != str(here):
        return None
    return _git(here, "describe", "--always", "--dirty", "--abbrev=12")


def _git(folder: Path, *command: str) -> str | None:
    try:
        result = subprocess.run(
            ["git", *command], cwd=folder, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.strip()
