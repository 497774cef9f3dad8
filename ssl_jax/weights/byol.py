"""ResNets of BYOL as its Haiku trees name them, nested or flattened.

Source: google-deepmind/deepmind-research, byol/utils/networks.py and byol_experiment.py;
dm-haiku's nets/resnet.py (BlockV1). The classifier that BYOL trains beside is read; projector and
predictor are left out, whose layers have biases where ours have none.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from ssl_jax.errors import BAD_DATA, Fault
from ssl_jax.weights import Arrays, Weights, resnets, trees
from ssl_jax.weights.trees import IMAGENET, Path

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
    """Weights of the online network; depth and width are told from shapes.

    Args:
      arrays: of parameters and of state, {module: {name: array}} inside of any mapping, or names
        joined by "/" or "//". Where there are several networks, the first is taken that is not an
        optimizer's, and one that is called "online" before others.
      mean, std: of the images' channels; BYOL standardises by ImageNet's.
      model: arguments of `models.get` where they are known; `mean` and `std` are not asked then.

    Raises:
      Fault: no ResNet of ours (of version 1), or arrays missing, unexpected or misshapen.
    """
    flat = trees.flat(arrays)
    if any("/~/final_batchnorm/" in name for name in flat):
        message = (
            f"{LAYOUT}: version 2 of ResNet, normalised before convolutions; ours are version 1"
        )
        raise Fault(message, BAD_DATA)
    params, state = _root(flat, FIRST), _root(flat, FIRST_MEAN)
    above = params.rpartition("/")[0]
    body = trees.strip(flat, f"{params}/~/")
    statistics = trees.strip(flat, f"{state}/~/")
    body |= {name: a for name, a in statistics.items() if name.endswith("ema/average")}
    if model is None:
        model = _infer(body, mean=mean, std=std)
    layer = trees.strip(flat, f"{above}/classifier/" if above else "classifier/")
    others = {"classifier": trees.dense(layer["w"], layer["b"])} if {"w", "b"} <= set(layer) else {}
    want = trees.shapes(model, resnets.IMAGE)
    return trees.place(LAYOUT, model, want, body, _name, _to_ours, others)


def _root(arrays: Arrays, tail: str) -> str:
    """What stands before the end of a name that every such network has."""
    roots = [n.removesuffix(tail) for n in arrays if n.endswith(tail) and "opt_state" not in n]
    if not roots:
        message = f"{LAYOUT}: no array ends in {tail!r}; there are {trees.listed(arrays)}"
        raise Fault(message, BAD_DATA)
    return next((root for root in roots if "online" in root), roots[0])


def _infer(arrays: Arrays, **hints: Any) -> dict[str, Any]:
    block = re.compile(r"block_group_(\d)/~/block_(\d{1,3})/")
    blocks = [match for name in arrays if (match := block.match(name))]
    stages = [0] * max((int(match[1]) + 1 for match in blocks), default=0)
    for match in blocks:
        stages[int(match[1])] = max(stages[int(match[1])], int(match[2]) + 1)
    bottleneck = "block_group_0/~/block_0/~/conv_2/w" in arrays
    return resnets.model(
        LAYOUT,
        block="Bottleneck" if bottleneck else "BasicBlock",
        stages=stages,
        channels=arrays["initial_conv/w"].shape[-1],
        stem="imagenet",
        padding="same",
        **hints,
    )


def _name(path: Path) -> str:
    """("params", "layer1_0", "bn1", "scale") -> "block_group_0/~/block_0/~/batchnorm_0/scale"."""
    _, *modules, leaf = path
    if match := re.fullmatch(r"layer(\d+)_(\d+)", modules[0]):
        inner = re.sub(r"\d", lambda number: f"_{int(number[0]) - 1}", modules[1])
        inner = SHORTCUT.get(modules[1]) or inner.replace("bn", "batchnorm")
        at = f"block_group_{int(match[1]) - 1}/~/block_{match[2]}/~/{inner}"
    else:
        at = STEM[modules[0]]
    return f"{at}/{LEAVES[leaf]}"


def _to_ours(path: Path, array: np.ndarray) -> np.ndarray:
    """Haiku keeps [1, 1, 1, c] of normalisation."""
    return array if path[-1] == "kernel" else array.reshape(-1)
