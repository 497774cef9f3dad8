"""Encoders by name. Importing this package imports neither JAX nor Flax, so that a command can
check a name at once."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssl_jax.models.resnet import ResNet

_RESNETS = {
    "resnet8": ("BasicBlock", (1, 1, 1)),
    "resnet10": ("BasicBlock", (1, 1, 1, 1)),
    "resnet18": ("BasicBlock", (2, 2, 2, 2)),
    "resnet34": ("BasicBlock", (3, 4, 6, 3)),
    "resnet50": ("Bottleneck", (3, 4, 6, 3)),
    "resnet101": ("Bottleneck", (3, 4, 23, 3)),
    "resnet152": ("Bottleneck", (3, 8, 36, 3)),
    "resnet200": ("Bottleneck", (3, 24, 36, 3)),
}


def names() -> list[str]:
    """The encoders that exist."""
    return list(_RESNETS)


def get(name: str, **options: Any) -> "ResNet":
    """Returns the encoder called `name`: a module(images [n, h, w, 3], train) -> [n, f] float32.

    `options` are the attributes of `resnet.ResNet` but block and stage_sizes: width, stem,
    sk_ratio, bn_group, bn_views, zero_gamma, dtype.

    Raises:
      ValueError: unknown name.
      TypeError: unknown option.
    """
    if name not in _RESNETS:
        raise ValueError(f"unknown encoder {name!r}; there are: {', '.join(names())}")
    from ssl_jax.models import resnet

    block, stage_sizes = _RESNETS[name]
    return resnet.ResNet(block=getattr(resnet, block), stage_sizes=stage_sizes, **options)
