"""The program itself, with its weights, for every JAX: on CPUs, GPUs and TPUs, for any batch."""

import pathlib
from typing import Any

import numpy as np

from ssl_jax.export import check
from ssl_jax.export.formats import Input
from ssl_jax.export.subject import (
    Subject,
    at_full_precision_without_paths,
    named,
    require_classifier,
    require_size,
    variables_of,
)

FILE = "model.stablehlo"
INPUT = Input("NHWC")
PLATFORMS = ("cpu", "cuda", "tpu")


def refuse(subject: Subject) -> None:
    """Raises Fault for weights that are too many for one file."""
    require_classifier(subject, "stablehlo")
    require_size(subject, "stablehlo")


def write(subject: Subject, folder: pathlib.Path) -> None:
    """Writes model.stablehlo."""
    import jax
    import jax.export

    variables = variables_of(subject.weights)

    def program(images: jax.Array) -> Any:
        outputs = subject.forward(variables, images)
        return outputs if subject.has_logits else outputs[0]

    side = subject.size
    shape = jax.export.symbolic_shape(f"n, {side}, {side}, 3")
    with at_full_precision_without_paths():
        exported = jax.export.export(jax.jit(program), platforms=PLATFORMS)(
            jax.ShapeDtypeStruct(shape, np.float32)
        )
    (folder / FILE).write_bytes(exported.serialize())


def read(subject: Subject, folder: pathlib.Path) -> dict[str, dict[str, np.ndarray]]:
    """Outputs of check.images by the file's program."""
    import jax.export

    program = jax.export.deserialize(bytearray((folder / FILE).read_bytes()))
    outputs = program.call(check.images(subject.size))
    return {"jax": named(outputs if subject.has_logits else [outputs])}


def usage(subject: Subject, folder: pathlib.PurePath) -> str:
    """Lines of Python."""
    file, side = str(folder / FILE), subject.size
    outputs = "features, logits" if subject.has_logits else "features"
    return (
        "import pathlib, jax, jax.export  # and flatbuffers, installed\n"
        f"program = jax.export.deserialize(bytearray(pathlib.Path({file!r}).read_bytes()))\n"
        f"# images: float32 [n, {side}, {side}, 3] in [0, 1]\n"
        f"{outputs} = program.call(images)"
    )
