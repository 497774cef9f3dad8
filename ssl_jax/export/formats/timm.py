"""Exports to timm's layout, which `timm.create_model` and the Hugging Face Hub read."""

import pathlib
from typing import Any

from ssl_jax.export import torch_weights
from ssl_jax.export.formats import Input
from ssl_jax.export.subject import Subject, require_linear_head
from ssl_jax.rundir import workdir

FILE = torch_weights.FILE
INPUT = Input("NCHW", standardised=True)
read = torch_weights.read


def check_supported(subject: Subject) -> None:
    """Raises Fault if timm does not have the network."""
    torch_weights.layout(subject).timm_name(subject.model)
    require_linear_head(subject, "timm")


def write(subject: Subject, folder: pathlib.Path) -> None:
    """Writes model.safetensors and config.json."""
    torch_weights.write(subject, folder)
    workdir.write_json(folder / "config.json", config(subject))


def config(subject: Subject) -> dict[str, Any]:
    """Returns the contents of config.json."""
    layout, size = torch_weights.layout(subject), subject.size
    mean, std = subject.standardisation
    vit = torch_weights.is_vit(subject)
    labels = {"label_names": list(subject.classes)} if subject.classes else {}
    return {
        "architecture": layout.timm_name(subject.model),
        "num_classes": subject.class_count,
        "num_features": subject.features,
        "global_pool": arguments(subject).get("global_pool", "token" if vit else "avg"),
        "model_args": arguments(subject),
        **labels,
        "pretrained_cfg": {
            "tag": f"ssl_jax_{subject.name}",
            "custom_load": False,
            "input_size": [3, size, size],
            "fixed_input_size": vit,
            "interpolation": "bicubic",
            "crop_pct": subject.backbone.crop,
            "crop_mode": "center",
            "mean": list(mean),
            "std": list(std),
            "num_classes": subject.class_count,
            "pool_size": None if vit else [-(-size // 32)] * 2,
            "first_conv": "patch_embed.proj" if vit else "conv1",
            "classifier": "head" if vit else "fc",
            "license": subject.license or "unknown",
        },
    }


def arguments(subject: Subject) -> dict[str, Any]:
    """Returns the arguments of `timm.create_model` that config.json would provide otherwise."""
    return torch_weights.layout(subject).timm_args(subject.model, subject.size)


def create_model_call(subject: Subject, file: pathlib.PurePath, **overlay: Any) -> str:
    """Returns the call of `timm.create_model` that reads a file of weights without a config.json.

    Args:
      subject: the exported backbone.
      file: path of the weights.
      overlay: further items of `pretrained_cfg_overlay`.
    """
    count = subject.class_count
    mean, std = subject.standardisation
    overlay = {"file": str(file), "num_classes": count, "mean": mean, "std": std, **overlay}
    items = ", ".join(f"{key}={value!r}" for key, value in overlay.items())
    extra = "".join(f", {key}={value!r}" for key, value in arguments(subject).items())
    name = torch_weights.layout(subject).timm_name(subject.model)
    return (
        f"timm.create_model({name!r}, pretrained=True, "
        f"num_classes={count}{extra},\n    pretrained_cfg_overlay=dict({items}))"
    )


def usage(subject: Subject, folder: pathlib.PurePath) -> str:
    """Returns Python code that loads the export."""
    lines = [
        "import timm",
        torch_weights.images_comment(subject, standardised=True),
        f"model = timm.create_model({f'local-dir:{folder}'!r}, pretrained=True).eval()",
        # Not `model(images)`, which returns logits if there is a classifier.
        "features = model.forward_head(model.forward_features(images), pre_logits=True)",
    ]
    if subject.has_logits:
        lines.append("logits = model(images)")
    lines.append("# or with the file alone:")
    lines.append(f"model = {create_model_call(subject, folder / FILE)}.eval()")
    return "\n".join(lines)
