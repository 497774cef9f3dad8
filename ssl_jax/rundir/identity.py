"""Compares what the processes of a job train: config, code, libraries and data.

Processes that differ would train without an error, to a mixed result.
"""

import hashlib
import importlib.util
import os
import pathlib
import platform
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from ssl_jax import config as configuration
from ssl_jax.data.source import Source
from ssl_jax.errors import BAD_CONFIG, BAD_DATA
from ssl_jax.jobs.comparison import require_equal
from ssl_jax.rundir import facts, versions

# The only field that may differ: hosts may keep the data in different places, and the data
# themselves are compared. The workdir is no field; see `bootstrap.check_shared_folder`.
PER_HOST = frozenset({"data.dir"})
# Settings that change numbers, whether the environment or the program set them.
JAX_SETTINGS = (
    *("jax_enable_x64", "jax_default_matmul_precision", "jax_default_prng_impl"),
    *("jax_threefry_partitionable", "jax_numpy_dtype_promotion"),
)
VARIABLES = ("TF_ENABLE_ONEDNN_OPTS",)
COMMAND_TIMEOUT = 300.0  # seconds; code older than this module never answers


def require_same_command(config: ConfigDict) -> None:
    """Compares config, settings, library versions and code of all processes of the job.

    Raises:
      Fault: BAD_CONFIG, in all processes, naming a process that differs and each field.
    """
    require_equal(
        "command",
        lambda: _command(config),
        code=BAD_CONFIG,
        advice="Start the same command with the same code and libraries on every host. Sizes that "
        "the config leaves to the data, as :folder does, also differ if the data differ",
        timeout=COMMAND_TIMEOUT,
    )


def _command(config: ConfigDict) -> dict[str, Any]:
    fields = configuration.flatten(config.to_dict())
    modules = ["ssl_jax", *configuration.external_modules(config)]
    return {
        **{name: value for name, value in fields.items() if name not in PER_HOST},
        **{name: str(getattr(jax.config, name)) for name in JAX_SETTINGS},
        **{name: os.environ.get(name) for name in VARIABLES},
        "version of python": platform.python_version(),
        **{f"version of {name}": version for name, version in versions.installed().items()},
        **{f"code of {name}": digest for name, digest in code_digests(modules).items()},
    }


def code_digests(modules: list[str]) -> dict[str, str]:
    """Returns {source file: start of its sha256} of the top-level packages of some modules.

    Nothing is imported. A git revision is not part of the identity: a checkout and an installed
    package with equal files train alike.
    """
    digests = {}
    for name in sorted({module.partition(".")[0] for module in modules}):
        spec = importlib.util.find_spec(name)
        if spec is None:
            continue  # its import fails later, with a message
        for folder in spec.submodule_search_locations or ():
            for file in pathlib.Path(folder).rglob("*.py"):
                path = file.relative_to(folder)
                # Editors leave hidden files, which no import finds; some are links to nothing.
                if not any(part.startswith(".") for part in path.parts):
                    digests[f"{name}/{path.as_posix()}"] = _digest(file)
        if not spec.submodule_search_locations and spec.has_location:
            digests[f"{name}.py"] = _digest(pathlib.Path(spec.origin or ""))
    return digests


def _digest(file: pathlib.Path) -> str:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()[:12]
    except OSError as error:  # not imported, or its import fails with a message
        return f"unreadable: {error.strerror}"


def require_same_weights(name: str, weights: Any) -> None:
    """Compares the weights that all processes of the job have read from their file systems.

    Args:
      name: name of the weights for the message.
      weights: tree of arrays.

    Raises:
      Fault: BAD_DATA, in all processes, naming a process that differs and each array.
    """
    require_equal(
        f"weights of {name}",
        lambda: {
            f"{name}{jax.tree_util.keystr(path)}": hashlib.sha256(
                f"{leaf.dtype} {leaf.shape} ".encode() + np.asarray(leaf).tobytes()
            ).hexdigest()[:16]
            for path, leaf in jax.tree_util.tree_leaves_with_path(weights)
        },
        code=BAD_DATA,
        advice=f"Give all hosts the same {name}",
    )


def require_same_data(**sources: Source | None) -> None:
    """Compares the data of all processes of the job: numbers of examples, classes, files.

    Args:
      sources: the opened splits, by the names that the message gives them.

    Raises:
      Fault: BAD_DATA, in all processes, naming a process that differs and each field.
    """
    require_equal(
        "data",
        lambda: {
            f"{split} data: {name}": value
            for split, source in sources.items()
            if source is not None
            for name, value in _data(source).items()
        },
        code=BAD_DATA,
        advice="Give all hosts the same data: equal names and sizes of files",
    )


def _data(source: Source) -> dict[str, Any]:
    return {
        "source": source.name,
        "examples": source.size,
        "label": source.label_field,
        "classes": len(source.classes),
        **{f"class {number}": name for number, name in enumerate(source.classes)},
        "names and sizes of files": source.identity()[:16],
        "facts of the training data": facts.digest(source.facts)[:16],
    }
