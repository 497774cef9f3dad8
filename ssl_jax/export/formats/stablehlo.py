"""Exports to a StableHLO program with its weights, for any batch size on CPUs, GPUs and TPUs.

JAX alone runs the program.
"""

import pathlib
from typing import Any

import numpy as np

from ssl_jax.export import check
from ssl_jax.export.formats import Input
from ssl_jax.export.subject import (
    Subject,
    at_full_precision_without_paths,
    name_outputs,
    require_classifier,
    require_size,
    variables_tree,
)

FILE = "model.stablehlo"
INPUT = Input("NHWC")
PLATFORMS = ("cpu", "cuda", "tpu")


def check_supported(subject: Subject) -> None:
    """Raises Fault if --head finds no classifier, or if the weights exceed one file."""
    require_classifier(subject, "stablehlo")
    require_size(subject, "stablehlo")


def write(subject: Subject, folder: pathlib.Path) -> None:
    """Writes model.stablehlo."""
    import jax
    import jax.export

    variables = variables_tree(subject.weights)

    def program(images: jax.Array) -> Any:
        outputs = subject.forward(variables, images)
        return outputs if subject.has_logits else outputs[0]

    side = subject.size
    shape = jax.export.symbolic_shape(f"n, {side}, {side}, {subject.backbone.channels}")
    with at_full_precision_without_paths():
        exported = jax.export.export(jax.jit(program), platforms=PLATFORMS)(
            jax.ShapeDtypeStruct(shape, np.float32)
        )
    (folder / FILE).write_bytes(exported.serialize())


def read(subject: Subject, folder: pathlib.Path) -> dict[str, dict[str, np.ndarray]]:
    """Returns the outputs for check.images, computed by the exported program."""
    import jax.export

    program = jax.export.deserialize(bytearray((folder / FILE).read_bytes()))
    outputs = program.call(check.images(subject))
    return {"jax": name_outputs(outputs if subject.has_logits else [outputs])}


def usage(subject: Subject, folder: pathlib.PurePath) -> str:
    """Returns Python code that loads the export."""
    file, side = str(folder / FILE), subject.size
    outputs = "features, logits" if subject.has_logits else "features"
    return (
        "import pathlib, jax, jax.export  # and flatbuffers, installed\n"
        f"program = jax.export.deserialize(bytearray(pathlib.Path({file!r}).read_bytes()))\n"
        f"# images: float32 [n, {side}, {side}, {subject.backbone.channels}] in [0, 1]\n"
        f"{outputs} = program.call(images)"
    )
