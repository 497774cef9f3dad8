"""Versions of the installed libraries, found without importing them."""

import importlib.metadata
import re

LIBRARIES = (
    *("jax", "jaxlib", "libtpu", "jax-cuda12-plugin", "jax-cuda13-plugin"),
    *("flax", "optax", "orbax-checkpoint", "numpy", "tensorflow-datasets", "pillow"),
    "tokenizers",
)


def installed() -> dict[str, str]:
    """Returns {distribution: version} of the libraries that compute or decode.

    TensorFlow has many distributions: tensorflow, tensorflow-cpu, tensorflow-macos, tf-nightly
    and others. The one that contains the package `tensorflow` appears under its own name.
    """
    versions = {}
    for name in (*LIBRARIES, *_tensorflow()):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _tensorflow() -> list[str]:
    """Returns the distributions that contain the package `tensorflow`."""
    return [
        re.sub(r"[-_.]+", "-", distribution.name).lower()
        for distribution in importlib.metadata.distributions()
        if distribution.name.lower().startswith(("tensorflow", "tf"))
        and "\ntensorflow/__init__.py," in f"\n{distribution.read_text('RECORD')}"
    ]
