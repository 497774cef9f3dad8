"""Exports to the state dict of torchvision's ResNets."""

import pathlib

from ssl_jax.export import torch_weights
from ssl_jax.export.formats import Input
from ssl_jax.export.subject import Subject, require_linear_head

FILE = torch_weights.FILE
INPUT = Input("NCHW", standardised=True)
read = torch_weights.read
write = torch_weights.write


def check_supported(subject: Subject) -> None:
    """Raises Fault if torchvision does not have the network."""
    torch_weights.layout(subject).torchvision_name(subject.model)
    require_linear_head(subject, "torchvision")


def usage(subject: Subject, folder: pathlib.PurePath) -> str:
    """Returns Python code that loads the export."""
    count = subject.class_count
    name = torch_weights.layout(subject).torchvision_name(subject.model)
    lines = [
        "import safetensors.torch, torch, torchvision",
        torch_weights.images_comment(subject, standardised=True),
        f"model = torchvision.models.{name}({f'num_classes={count}' if count else ''})",
        "model.fc = torch.nn.Identity()",
        f"state = safetensors.torch.load_file({str(folder / FILE)!r})",
        "model.load_state_dict(state, strict=True)",
        f"{'logits' if count else 'features'} = model.eval()(images)",
    ]
    if count:
        del lines[3]
    return "\n".join(lines)
