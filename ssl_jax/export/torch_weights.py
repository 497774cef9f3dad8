"""Weights as PyTorch names them, in a safetensors file, and back."""

import pathlib
from typing import Any

import numpy as np

from ssl_jax import models
from ssl_jax.errors import USAGE, Fault
from ssl_jax.export import check, torch_runtime
from ssl_jax.export.subject import Subject
from ssl_jax.weights import Arrays, Weights, torch_resnet, torch_vit

FILE = "model.safetensors"


def layout(subject: Subject) -> Any:
    """The map of names of the encoder's family.

    Raises:
      Fault: a family that has none.
    """
    name = subject.model["name"]
    if name in models.RESNETS:
        return torch_resnet
    if name in models.VITS:
        return torch_vit
    raise Fault(
        f"{name}: only ResNets and ViTs have a PyTorch definition. Take --format=npz, stablehlo, "
        "savedmodel or orbax",
        USAGE,
    )


def is_vit(subject: Subject) -> bool:
    """Whether the encoder is a Vision Transformer."""
    return layout(subject) is torch_vit


def encode(subject: Subject) -> Arrays:
    """The state of a torch module; a classifier is its last layer."""
    if is_vit(subject):
        return torch_vit.encode(subject.weights, subject.size)
    return torch_resnet.encode(subject.weights)


def config(subject: Subject) -> dict[str, Any]:
    """What `pytorch.py` builds the network from."""
    return layout(subject).config(subject.model)


def write(subject: Subject, folder: pathlib.Path) -> None:
    """Writes the torch_weights."""
    import safetensors.numpy

    # By bytes, since the library hides from which file and why the system refused to write.
    (folder / FILE).write_bytes(safetensors.numpy.save(encode(subject), metadata={"format": "pt"}))


def read(subject: Subject, folder: pathlib.Path) -> dict[str, dict[str, np.ndarray]]:
    """Outputs of check.images by our own network, and by PyTorch's where that is installed."""
    import safetensors.numpy

    arrays = safetensors.numpy.load_file(folder / FILE)
    images = check.images(subject.size)
    weights: Weights = layout(subject).decode(arrays, model=subject.model)
    found = {"jax": subject.run_weights(weights, images)}
    if torch_runtime.installed():
        network = torch_runtime.network(config(subject), arrays)
        found["torch"] = torch_runtime.outputs(network, images, subject.has_logits)
    return found


def images_comment(subject: Subject, *, standardised: bool) -> str:
    """What goes into the network, as a comment of a line of Python."""
    mean, std = subject.standardisation
    values = "in [0, 1]"
    if standardised and (any(mean) or set(std) != {1.0}):
        values += f" less mean {list(mean)}, over std {list(std)}"
    return f"# images: float32 [n, 3, {subject.size}, {subject.size}] {values}"
