"""Writes and reads weights with PyTorch's names in a safetensors file."""

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
    """Returns the module with the name map of the encoder: `torch_resnet` or `torch_vit`.

    Raises:
      Fault: if the encoder is neither a ResNet nor a ViT, does not take RGB images, or is a
        ResNet without batch normalisation or with patches.
    """
    name = subject.model["name"]
    if subject.backbone.channels != 3:
        raise Fault(
            f"PyTorch's definitions take RGB images, but this encoder takes images with "
            f"{subject.backbone.channels} channels. Use --format=npz, stablehlo, savedmodel or "
            "orbax",
            USAGE,
        )
    if (colors := subject.model.get("colors", "rgb")) != "rgb" and name in models.RESNETS:
        raise Fault(
            f"this encoder sees the {colors} of images (model.colors), which PyTorch's definitions "
            "do not compute. Use --format=npz, stablehlo, savedmodel or orbax",
            USAGE,
        )
    if name in models.RESNETS:
        _refuse_options(subject)
        return torch_resnet
    if name in models.VITS:
        return torch_vit
    raise Fault(
        f"{name}: only ResNets and ViTs have a PyTorch definition. Use --format=npz, stablehlo, "
        "savedmodel or orbax",
        USAGE,
    )


def _refuse_options(subject: Subject) -> None:
    norm, patch = subject.model.get("norm", "batch"), subject.model.get("patch", 0)
    used = [f"model.norm={norm}"] * (norm != "batch") + [f"model.patch={patch}"] * (patch > 0)
    if used:
        raise Fault(
            f"PyTorch's definition of ResNets has no {' and no '.join(used)}. Use --format=npz, "
            "stablehlo, savedmodel or orbax",
            USAGE,
        )


def is_vit(subject: Subject) -> bool:
    """Returns True if the encoder is a Vision Transformer."""
    return layout(subject) is torch_vit


def encode(subject: Subject) -> Arrays:
    """Returns the state of a torch module; a classifier is its last layer."""
    if is_vit(subject):
        return torch_vit.encode(subject.weights, subject.size)
    return torch_resnet.encode(subject.weights)


def config(subject: Subject) -> dict[str, Any]:
    """Returns the config from which `pytorch.py` builds the network."""
    return layout(subject).config(subject.model)


def write(subject: Subject, folder: pathlib.Path) -> None:
    """Writes the tensors to `FILE`."""
    import safetensors.numpy

    # save_file would hide the file name and the reason if the system refuses to write.
    (folder / FILE).write_bytes(safetensors.numpy.save(encode(subject), metadata={"format": "pt"}))


def read(subject: Subject, folder: pathlib.Path) -> dict[str, dict[str, np.ndarray]]:
    """Returns the outputs for check.images, computed by JAX and, if installed, by PyTorch."""
    import safetensors.numpy

    arrays = safetensors.numpy.load_file(folder / FILE)
    images = check.images(subject)
    weights: Weights = layout(subject).decode(arrays, model=subject.model)
    outputs = {"jax": subject.run_weights(weights, images)}
    if torch_runtime.is_installed():
        network = torch_runtime.build_network(config(subject), arrays)
        outputs["torch"] = torch_runtime.run_network(network, images, subject.has_logits)
    return outputs


def images_comment(subject: Subject, *, standardised: bool) -> str:
    """Returns a line of Python, a comment that describes the input of the network."""
    mean, std = subject.standardisation
    values = "in [0, 1]"
    if standardised and (any(mean) or set(std) != {1.0}):
        values += f" minus mean {list(mean)}, divided by std {list(std)}"
    return f"# images: float32 [n, 3, {subject.size}, {subject.size}] {values}"
