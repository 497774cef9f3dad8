"""Exports to one ONNX file for any batch size, by converting the PyTorch definition."""

import importlib.util
import pathlib

import numpy as np

from ssl_jax.errors import MISSING_INPUT, Fault
from ssl_jax.export import check, torch_runtime, torch_weights
from ssl_jax.export.formats import Input
from ssl_jax.export.subject import Subject, name_outputs, require_linear_head, require_size

FILE = "model.onnx"
INPUT = Input("NCHW")
NEEDS = ("torch", "onnx", "onnxscript", "onnxruntime")


def check_supported(subject: Subject) -> None:
    """Raises Fault if a package or a PyTorch definition is missing, or the subject does not fit."""
    if missing := [name for name in NEEDS if importlib.util.find_spec(name) is None]:
        raise Fault(
            f"--format=onnx needs {', '.join(missing)}: pip install {' '.join(NEEDS)}",
            MISSING_INPUT,
        )
    torch_weights.layout(subject)
    require_linear_head(subject, "onnx")
    require_size(subject, "onnx")


def write(subject: Subject, folder: pathlib.Path) -> None:
    """Writes model.onnx."""
    network = torch_runtime.build_network(
        torch_weights.config(subject), torch_weights.encode(subject)
    )
    images = check.images(subject)
    torch_runtime.write_onnx(network, images, subject.has_logits, folder / FILE)
    _strip(folder / FILE)


def _strip(file: pathlib.Path) -> None:
    """Removes the exporter's metadata, which holds paths of this machine."""
    import onnx

    model = onnx.load(file)
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info):
        part.ClearField("metadata_props")
    for node in (node for function in model.functions for node in function.node):
        node.ClearField("metadata_props")
    file.write_bytes(model.SerializeToString())


def read(subject: Subject, folder: pathlib.Path) -> dict[str, dict[str, np.ndarray]]:
    """Returns the outputs for check.images, computed by ONNX Runtime for the batch and per image.

    The second reader proves that the batch size is free.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / FILE, providers=["CPUExecutionProvider"])
    images = check.nchw(check.images(subject))
    rows = [session.run(None, {"images": image[None]}) for image in images]
    return {
        "onnxruntime": name_outputs(session.run(None, {"images": images})),
        "onnxruntime, one image": name_outputs(
            [np.concatenate(x) for x in zip(*rows, strict=True)]
        ),
    }


def usage(subject: Subject, folder: pathlib.PurePath) -> str:
    """Returns Python code that loads the export."""
    outputs = "features, logits" if subject.has_logits else "(features,)"
    return (
        "import onnxruntime\n"
        f"session = onnxruntime.InferenceSession({str(folder / FILE)!r})\n"
        f"{torch_weights.images_comment(subject, standardised=False)}\n"
        f"{outputs} = session.run(None, {{'images': images}})"
    )
