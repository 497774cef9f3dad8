"""Exports ResNets and ViTs to PyTorch, with the definition of the network beside the weights."""

import pathlib
import shutil

import numpy as np

from ssl_jax.export import check, torch_runtime, torch_weights
from ssl_jax.export.formats import Input
from ssl_jax.export.subject import Subject, require_linear_head
from ssl_jax.rundir import workdir

FILE = torch_weights.FILE
INPUT = Input("NCHW")
DEFINITION = pathlib.Path(torch_weights.__file__).with_name("pytorch.py")


def check_supported(subject: Subject) -> None:
    """Raises Fault if the network has no definition in PyTorch."""
    torch_weights.layout(subject)
    require_linear_head(subject, "torch")


def write(subject: Subject, folder: pathlib.Path) -> None:
    """Writes model.safetensors, config.json and model.py."""
    torch_weights.write(subject, folder)
    config = {"ssl_jax": torch_weights.config(subject), "label_names": list(subject.classes)}
    workdir.write_json(folder / "config.json", config)
    shutil.copyfile(DEFINITION, folder / "model.py")


def read(subject: Subject, folder: pathlib.Path) -> dict[str, dict[str, np.ndarray]]:
    """Returns the outputs for check.images, computed by JAX and, if installed, by PyTorch.

    PyTorch loads the network with the export's own model.py.
    """
    outputs = torch_weights.read(subject, folder)
    if "torch" in outputs:
        network = torch_runtime.load_export(folder)
        images = check.images(subject)
        outputs["torch"] = torch_runtime.run_network(network, images, subject.has_logits)
    return outputs


def usage(subject: Subject, folder: pathlib.PurePath) -> str:
    """Returns Python code that loads the export."""
    lines = [
        f"import sys; sys.path.insert(0, {str(folder)!r})  # the folder of model.py",
        "from model import load",
        torch_weights.images_comment(subject, standardised=False),
        f"model = load({str(folder)!r})",
        "features = model(images)",
    ]
    return "\n".join([*lines, "logits = model.logits(images)"][: 5 + subject.has_logits])
