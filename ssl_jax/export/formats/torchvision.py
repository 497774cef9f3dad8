"""The state of torchvision's ResNets."""

import pathlib

from ssl_jax.export import torch_weights
from ssl_jax.export.formats import Input
from ssl_jax.export.subject import Subject, require_weights_alone

FILE = torch_weights.FILE
INPUT = Input("NCHW", standardised=True)
read = torch_weights.read
write = torch_weights.write


def refuse(subject: Subject) -> None:
    """Raises Fault for networks that torchvision does not have."""
    torch_weights.layout(subject).torchvision_name(subject.model)
    require_weights_alone(subject, "torchvision")


def usage(subject: Subject, folder: pathlib.PurePath) -> str:
    """Lines of Python."""
    count = subject.class_count
    made = torch_weights.layout(subject).torchvision_name(subject.model)
    lines = [
        "import safetensors.torch, torch, torchvision",
        torch_weights.images_comment(subject, standardised=True),
        f"model = torchvision.models.{made}({f'num_classes={count}' if count else ''})",
        "model.fc = torch.nn.Identity()",
        f"state = safetensors.torch.load_file({str(folder / FILE)!r})",
        "model.load_state_dict(state, strict=True)",
        f"{'logits' if count else 'features'} = model.eval()(images)",
    ]
    if count:
        del lines[3]
    return "\n".join(lines)
