"""Recognises the layout of a file of weights by the names of its arrays, and decodes it."""

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ssl_jax.errors import BAD_DATA, USAGE, Fault
from ssl_jax.models.options import IMAGENET
from ssl_jax.weights import Weights, byol, native, npz_vit, simclr, torch_resnet, torch_vit, trees


class Layout(NamedTuple):
    """A naming scheme of arrays that this project can decode."""

    name: str
    """Name for error messages."""

    pattern: str
    """Regular expression for the end of an array name that every file of this layout has, and
    that files of other layouts do not have."""

    decode: Callable[..., Weights]


LAYOUTS = (
    Layout(
        "ssl_jax",
        r"^params/(first/)?(conv1|conv1_0|patch_embed|rbm0|layer0)/kernel",
        native.decode,
    ),
    Layout("BYOL (Haiku)", r"/~/initial_conv/w", byol.decode),
    Layout("SimCLR (TensorFlow 1)", r"base_model/conv2d/kernel", simclr.decode),
    Layout("ViT in Google's npz", r"(?:^|/)embedding/kernel", npz_vit.decode),
    Layout("ViT in PyTorch", r"(?:^|(?<=\.))patch_embed\.proj\.weight", torch_vit.decode),
    Layout("ResNet in PyTorch", r"(?:^|(?<=\.))layer1\.0\.conv1\.weight", torch_resnet.decode),
)
"""All layouts, in the order in which `recognise` tries them."""
TORCH = (torch_vit.decode, torch_resnet.decode)
# If a file holds several networks of a method, decode the trained one and not its moving average.
# DINO is the exception: its teacher gives the better features.
PREFERRED = ("encoder_q.", "base_encoder.", "teacher.", "backbone.")


def decode(arrays: Mapping[str, Any], **hints: Any) -> Weights:
    """Returns the weights in `arrays`; recognises the layout by the names.

    Some PyTorch files hold the encoder inside a method's module, with a prefix such as
    "module.encoder_q.". The last layer of such an encoder is the method's projection. The default
    for its images is ImageNet's mean and standard deviation.

    Args:
      arrays: arrays by the names of the file, flat or nested.
      hints: keyword arguments of the layout's own `decode`, which shapes cannot determine.

    Raises:
      Fault: if the layout is unknown, does not accept a hint, or if arrays do not fit.
    """
    arrays = trees.flatten_names(arrays)
    layout = recognise(arrays)
    accepted = inspect.signature(layout.decode).parameters
    if unknown := [hint for hint in hints if hint not in accepted]:
        options = ", ".join(name for name in accepted if name not in ("arrays", "projection"))
        message = f"{layout.name}: unknown hint {', '.join(unknown)}. Accepted are: {options}"
        raise Fault(message, USAGE)
    if layout.decode not in TORCH:
        return layout.decode(arrays, **hints)
    prefix = _prefix(layout, arrays)
    in_method = "encoder" in prefix
    hints = (IMAGENET if in_method else {}) | {"projection": in_method} | hints
    return layout.decode(trees.strip_prefix(arrays, prefix), **hints)


def recognise(arrays: Mapping[str, np.ndarray]) -> Layout:
    """Returns the layout that the names of the arrays belong to.

    Raises:
      Fault: if the names belong to no known layout.
    """
    for layout in LAYOUTS:
        if any(re.search(f"{layout.pattern}$", name) for name in arrays):
            return layout
    known = "; ".join(layout.name for layout in LAYOUTS)
    message = f"unknown layout with the arrays {trees.list_names(arrays)}. Known layouts: {known}"
    raise Fault(message, BAD_DATA)


def _prefix(layout: Layout, arrays: Mapping[str, np.ndarray]) -> str:
    """Returns the prefix of the names of the network to decode."""
    matches = [(name, re.search(f"{layout.pattern}$", name)) for name in arrays]
    prefixes = [name[: match.start()] for name, match in matches if match]
    if len(prefixes) == 1:
        return prefixes[0]
    for preferred in PREFERRED:
        if candidates := [prefix for prefix in prefixes if preferred in prefix]:
            return candidates[0]
    message = f"{layout.name}: the file holds several networks: {trees.list_names(prefixes)}"
    raise Fault(f"{message}. Save only the one that you want", BAD_DATA)
