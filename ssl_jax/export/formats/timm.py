"""timm's layout, which its `create_model` and the Hugging Face Hub read."""

import pathlib
from typing import Any

from ssl_jax import workdir
from ssl_jax.export import torch_weights
from ssl_jax.export.formats import Input
from ssl_jax.export.subject import Subject, require_weights_alone

FILE = torch_weights.FILE
INPUT = Input("NCHW", standardised=True)
read = torch_weights.read


def refuse(subject: Subject) -> None:
    """Raises Fault for networks that timm does not have."""
    torch_weights.layout(subject).timm_name(subject.model)
    require_weights_alone(subject, "timm")


def write(subject: Subject, folder: pathlib.Path) -> None:
    """Writes model.safetensors and config.json."""
    torch_weights.write(subject, folder)
    workdir.write_json(folder / "config.json", config(subject))


def config(subject: Subject) -> dict[str, Any]:
    """Contents of config.json."""
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
    """What `timm.create_model` must be told where no config.json tells it."""
    return torch_weights.layout(subject).timm_args(subject.model, subject.size)


def by_file(subject: Subject, file: pathlib.PurePath, **overlay: Any) -> str:
    """The call of `timm.create_model` that reads a file of weights, without a config.json."""
    count = subject.class_count
    mean, std = subject.standardisation
    overlay = {"file": str(file), "num_classes": count, "mean": mean, "std": std, **overlay}
    named = ", ".join(f"{key}={value!r}" for key, value in overlay.items())
    extra = "".join(f", {key}={value!r}" for key, value in arguments(subject).items())
    return (
        f"timm.create_model({torch_weights.layout(subject).timm_name(subject.model)!r}, pretrained=True, "
        f"num_classes={count}{extra},\n    pretrained_cfg_overlay=dict({named}))"
    )


def usage(subject: Subject, folder: pathlib.PurePath) -> str:
    """Lines of Python."""
    lines = [
        "import timm",
        torch_weights.images_comment(subject, standardised=True),
        f"model = timm.create_model({f'local-dir:{folder}'!r}, pretrained=True).eval()",
        # Not `model(images)`, which are logits where there is a classifier.
        "features = model.forward_head(model.forward_features(images), pre_logits=True)",
    ]
    if subject.has_logits:
        lines.append("logits = model(images)")
    lines.append("# or by the file alone:")
    lines.append(f"model = {by_file(subject, folder / FILE)}.eval()")
    return "\n".join(lines)
