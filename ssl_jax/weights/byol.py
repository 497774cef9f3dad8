"""Decodes BYOL's ResNets from Haiku trees, nested or flattened.

The classifier that BYOL trains beside its encoder is decoded. Projector and predictor are left
out, because their layers have biases and those of this project do not.

Source: google-deepmind/deepmind-research, byol/utils/networks.py and byol_experiment.py;
dm-haiku's nets/resnet.py (BlockV1).
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from ssl_jax.errors import BAD_DATA, Fault
from ssl_jax.models.options import IMAGENET
from ssl_jax.weights import Arrays, Weights, resnets, trees
from ssl_jax.weights.trees import Path

LAYOUT = "BYOL checkpoint"
FIRST = "/~/initial_conv/w"
FIRST_MEAN = "/~/initial_batchnorm/~/mean_ema/average"
LEAVES = {
    "kernel": "w",
    "scale": "scale",
    "bias": "offset",
    "mean": "~/mean_ema/average",
    "var": "~/var_ema/average",
}
SHORTCUT = {"downsample_conv": "shortcut_conv", "downsample_bn": "shortcut_batchnorm"}
STEM = {"conv1": "initial_conv", "bn1": "initial_batchnorm"}


def decode(
    arrays: Mapping[str, Any],
    *,
    mean: tuple[float, ...] = IMAGENET["mean"],
    std: tuple[float, ...] = IMAGENET["std"],
    model: Mapping[str, Any] | None = None,
) -> Weights:
    """Returns the weights of the online network; infers depth and width from shapes.

    Args:
      arrays: parameters and state, as {module: {name: array}} inside any mapping, or by names
        joined with "/" or "//". Of several networks, one with "online" in its name is decoded,
        otherwise the first one. Arrays of optimizers do not count.
      mean, std: per-channel statistics of the images; BYOL uses those of ImageNet.
      model: arguments of `models.get`, if known; `mean` and `std` are then ignored.

    Raises:
      Fault: if the network is not a supported ResNet of version 1, or if arrays are missing,
        unexpected or misshapen.
    """
    flat = trees.flatten_names(arrays)
    if any("/~/final_batchnorm/" in name for name in flat):
        message = f"{LAYOUT}: ResNet version 2 (normalisation before convolutions)"
        raise Fault(f"{message} is not supported; only version 1 is", BAD_DATA)
    params, state = _root(flat, FIRST), _root(flat, FIRST_MEAN)
    parent = params.rpartition("/")[0]
    body = trees.strip_prefix(flat, f"{params}/~/")
    statistics = trees.strip_prefix(flat, f"{state}/~/")
    body |= {name: a for name, a in statistics.items() if name.endswith("ema/average")}
    if model is None:
        model = _infer(body, mean=mean, std=std)
    layer = trees.strip_prefix(flat, f"{parent}/classifier/" if parent else "classifier/")
    others = {}
    if {"w", "b"} <= set(layer):
        others = {"classifier": trees.dense_tree(layer["w"], layer["b"])}
    expected = trees.shapes(model, resnets.IMAGE)
    return trees.assemble(LAYOUT, model, expected, body, _name, _to_ours, others)


def _root(arrays: Arrays, suffix: str) -> str:
    """Returns the prefix of the network whose array names end in `suffix`."""
    roots = [n.removesuffix(suffix) for n in arrays if n.endswith(suffix) and "opt_state" not in n]
    if not roots:
        message = f"{LAYOUT}: no array name ends in {suffix!r}. The file holds"
        raise Fault(f"{message} {trees.list_names(arrays)}", BAD_DATA)
    return next((root for root in roots if "online" in root), roots[0])


def _infer(arrays: Arrays, **hints: Any) -> dict[str, Any]:
    block = re.compile(r"block_group_(\d)/~/block_(\d{1,3})/")
    blocks = [match for name in arrays if (match := block.match(name))]
    stages = [0] * max((int(match[1]) + 1 for match in blocks), default=0)
    for match in blocks:
        stages[int(match[1])] = max(stages[int(match[1])], int(match[2]) + 1)
    bottleneck = "block_group_0/~/block_0/~/conv_2/w" in arrays
    return resnets.infer_model(
        LAYOUT,
        block="Bottleneck" if bottleneck else "BasicBlock",
        stages=stages,
        channels=arrays["initial_conv/w"].shape[-1],
        stem="imagenet",
        padding="same",
        **hints,
    )


def _name(path: Path) -> str:
    """Returns BYOL's name of an array.

    ("params", "layer1_0", "bn1", "scale") becomes "block_group_0/~/block_0/~/batchnorm_0/scale".
    """
    _, *modules, leaf = path
    if match := re.fullmatch(r"layer(\d+)_(\d+)", modules[0]):
        inner = re.sub(r"\d", lambda number: f"_{int(number[0]) - 1}", modules[1])
        inner = SHORTCUT.get(modules[1]) or inner.replace("bn", "batchnorm")
        module = f"block_group_{int(match[1]) - 1}/~/block_{match[2]}/~/{inner}"
    else:
        module = STEM[modules[0]]
    return f"{module}/{LEAVES[leaf]}"


def _to_ours(path: Path, array: np.ndarray) -> np.ndarray:
    """Flattens Haiku's normalisation arrays, which are [1, 1, 1, c]."""
    return array if path[-1] == "kernel" else array.reshape(-1)
