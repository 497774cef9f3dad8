"""Our tree of arrays as Orbax keeps it, for other users of JAX."""

import pathlib

import numpy as np

from ssl_jax.export import check
from ssl_jax.export.formats import Input
from ssl_jax.export.subject import Subject, variables_of

FILE = "backbone"
INPUT = Input("NHWC")


def refuse(subject: Subject) -> None:
    """Everything fits."""


def write(subject: Subject, folder: pathlib.Path) -> None:
    """Writes the folder backbone/."""
    import orbax.checkpoint as ocp

    with ocp.StandardCheckpointer() as writer:
        writer.save(folder.absolute() / FILE, _tree(subject))
    marker = folder / FILE / "commit_success.txt"
    if marker.exists():
        # That it is there matters, not what it says, which is the folder of now.
        marker.write_text("Checkpoint commit was successful\n")


def read(subject: Subject, folder: pathlib.Path) -> dict[str, dict[str, np.ndarray]]:
    """Outputs of check.images by our own network."""
    import jax
    import orbax.checkpoint as ocp

    with ocp.StandardCheckpointer() as reader:
        tree = jax.tree.map(np.asarray, reader.restore(folder.absolute() / FILE))
    weights = subject.weights._replace(**{name: tree[name] for name in _tree(subject)})
    return {"jax": subject.run_weights(weights, check.images(subject.size))}


def usage(subject: Subject, folder: pathlib.PurePath) -> str:
    """Lines of Python."""
    names = ", ".join(_tree(subject))
    values = ", ".join(f"tree[{name!r}]" for name in _tree(subject))
    return (
        "import orbax.checkpoint as ocp\n"
        f"tree = ocp.StandardCheckpointer().restore({str(folder / FILE)!r})\n"
        f"{names} = {values}"
    )


def _tree(subject: Subject) -> dict:
    tree = variables_of(subject.weights)
    return tree if subject.head else {k: v for k, v in tree.items() if k != "others"}
