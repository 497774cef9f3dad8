"""Exports the tree of arrays as an Orbax checkpoint, for other users of JAX."""

import pathlib

import numpy as np

from ssl_jax.export import check
from ssl_jax.export.formats import Input
from ssl_jax.export.subject import Subject, variables_tree
from ssl_jax.jobs import files

FILE = "backbone"
INPUT = Input("NHWC")


def check_supported(subject: Subject) -> None:
    """Accepts every subject."""


def write(subject: Subject, folder: pathlib.Path) -> None:
    """Writes the folder backbone/."""
    import orbax.checkpoint as ocp

    with ocp.StandardCheckpointer() as writer:
        writer.save(folder.absolute() / FILE, _tree(subject))
    marker = folder / FILE / "commit_success.txt"
    if marker.exists():
        # Only the existence of this file matters. Its text names the current folder: replace it.
        files.write(marker, "Checkpoint commit was successful\n")


def read(subject: Subject, folder: pathlib.Path) -> dict[str, dict[str, np.ndarray]]:
    """Returns the outputs for check.images, computed by JAX."""
    import jax
    import orbax.checkpoint as ocp

    with ocp.StandardCheckpointer() as reader:
        tree = jax.tree.map(np.asarray, reader.restore(folder.absolute() / FILE))
    weights = subject.weights._replace(**{name: tree[name] for name in _tree(subject)})
    return {"jax": subject.run_weights(weights, check.images(subject))}


def usage(subject: Subject, folder: pathlib.PurePath) -> str:
    """Returns Python code that loads the export."""
    names = ", ".join(_tree(subject))
    values = ", ".join(f"tree[{name!r}]" for name in _tree(subject))
    return (
        "import orbax.checkpoint as ocp\n"
        f"tree = ocp.StandardCheckpointer().restore({str(folder / FILE)!r})\n"
        f"{names} = {values}"
    )


def _tree(subject: Subject) -> dict:
    tree = variables_tree(subject.weights)
    return tree if subject.head else {k: v for k, v in tree.items() if k != "others"}
