"""Which layout a file of weights has: told by the names of its arrays."""

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ssl_jax.errors import BAD_DATA, USAGE, Fault
from ssl_jax.weights import Weights, byol, native, npz_vit, simclr, torch_resnet, torch_vit, trees
from ssl_jax.weights.trees import IMAGENET


class Layout(NamedTuple):
    """A layout that is read."""

    name: str
    """For people."""

    mark: str
    """A regular expression: the end of a name that every such file has and no other."""

    decode: Callable[..., Weights]


KNOWN = (
    Layout("ssl_jax", r"^params/(conv1|conv1_0|patch_embed|rbm0)/kernel", native.decode),
    Layout("BYOL (Haiku)", r"/~/initial_conv/w", byol.decode),
    Layout("SimCLR (TensorFlow 1)", r"base_model/conv2d/kernel", simclr.decode),
    Layout("ViT in Google's npz", r"(?:^|/)embedding/kernel", npz_vit.decode),
    Layout("ViT in PyTorch", r"(?:^|(?<=\.))patch_embed\.proj\.weight", torch_vit.decode),
    Layout("ResNet in PyTorch", r"(?:^|(?<=\.))layer1\.0\.conv1\.weight", torch_resnet.decode),
)
"""In the order in which they are tried."""
TORCH = (torch_vit.decode, torch_resnet.decode)
# Of a method's networks that one file holds: the trained one, not the moving average of it, but
# for DINO, whose teacher is the better one.
PREFERRED = ("encoder_q.", "base_encoder.", "teacher.", "backbone.")


def decode(arrays: Mapping[str, Any], **hints: Any) -> Weights:
    """Weights of a file, whatever layout it has.

    An encoder inside of a method's module in PyTorch (module.encoder_q. and the like) ends in the
    method's projection, and is taken to be trained on images standardised by ImageNet's statistics.

    Args:
      arrays: by the names of the file, flat or nested.
      hints: what shapes cannot tell, as the layout's own `decode` takes it.

    Raises:
      Fault: an unknown layout, a hint that it does not take, or arrays that do not fit.
    """
    arrays = trees.flat(arrays)
    layout = recognise(arrays)
    takes = inspect.signature(layout.decode).parameters
    if unknown := [hint for hint in hints if hint not in takes]:
        options = ", ".join(name for name in takes if name not in ("arrays", "projection"))
        message = f"{layout.name}: no hint {', '.join(unknown)}; there are: {options}"
        raise Fault(message, USAGE)
    if layout.decode not in TORCH:
        return layout.decode(arrays, **hints)
    prefix = _prefix(layout, arrays)
    inside = "encoder" in prefix
    hints = (IMAGENET if inside else {}) | {"projection": inside} | hints
    return layout.decode(trees.strip(arrays, prefix), **hints)


def recognise(arrays: Mapping[str, np.ndarray]) -> Layout:
    """The layout whose names these are.

    Raises:
      Fault: none of those known.
    """
    for layout in KNOWN:
        if any(re.search(f"{layout.mark}$", name) for name in arrays):
            return layout
    known = "; ".join(layout.name for layout in KNOWN)
    message = f"arrays of no known layout: {trees.listed(arrays)}. Known are: {known}"
    raise Fault(message, BAD_DATA)


def _prefix(layout: Layout, arrays: Mapping[str, np.ndarray]) -> str:
    """What stands before the names of the network that is wanted."""
    ends = [(name, re.search(f"{layout.mark}$", name)) for name in arrays]
    prefixes = [name[: match.start()] for name, match in ends if match]
    if len(prefixes) == 1:
        return prefixes[0]
    for wanted in PREFERRED:
        if found := [prefix for prefix in prefixes if wanted in prefix]:
            return found[0]
    message = f"{layout.name}: several networks, {trees.listed(prefixes)}; save the one you want"
    raise Fault(f"{message} alone", BAD_DATA)
