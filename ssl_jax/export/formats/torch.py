"""PyTorch, with the network's definition beside the weights: every ResNet and ViT of ours."""

import pathlib
import shutil

import numpy as np

from ssl_jax import workdir
from ssl_jax.export import check, torch_runtime, torch_weights
from ssl_jax.export.formats import Input
from ssl_jax.export.subject import Subject, require_weights_alone

FILE = torch_weights.FILE
INPUT = Input("NCHW")
DEFINITION = pathlib.Path(torch_weights.__file__).with_name("pytorch.py")


def refuse(subject: Subject) -> None:
    """Raises Fault for networks that have no definition in PyTorch."""
    torch_weights.layout(subject)
    require_weights_alone(subject, "torch")


def write(subject: Subject, folder: pathlib.Path) -> None:
    """Writes model.safetensors, config.json and model.py."""
    torch_weights.write(subject, folder)
    config = {"ssl_jax": torch_weights.config(subject), "label_names": list(subject.classes)}
    workdir.write_json(folder / "config.json", config)
    shutil.copyfile(DEFINITION, folder / "model.py")


def read(subject: Subject, folder: pathlib.Path) -> dict[str, dict[str, np.ndarray]]:
    """As `torch_weights.read`, but PyTorch's network is loaded by the folder's own model.py."""
    found = torch_weights.read(subject, folder)
    if "torch" in found:
        images = check.images(subject.size)
        found["torch"] = torch_runtime.outputs(
            torch_runtime.shipped(folder), images, subject.has_logits
        )
    return found


def usage(subject: Subject, folder: pathlib.PurePath) -> str:
    """Lines of Python."""
    lines = [
        f"import sys; sys.path.insert(0, {str(folder)!r})  # where model.py lies, or copy it",
        "from model import load",
        torch_weights.images_comment(subject, standardised=False),
        f"model = load({str(folder)!r})",
        "features = model(images)",
    ]
    return "\n".join([*lines, "logits = model.logits(images)"][: 5 + subject.has_logits])
