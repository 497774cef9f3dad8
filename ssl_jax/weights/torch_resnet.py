"""ResNets under torchvision's names, which are timm's and those of most releases in PyTorch.

Selective kernels and ResNet-D's stem, which torchvision lacks, have names of our own: conv2.conv,
conv2.bn, conv2.reduce, conv2.reduce_bn, conv2.expand; conv1.0, conv1.1, conv1.3, conv1.4, conv1.6.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from ssl_jax.errors import BAD_DATA, USAGE, Fault
from ssl_jax.models import RESNETS
from ssl_jax.weights import Arrays, Tree, Weights, resnets, trees
from ssl_jax.weights.trees import Path

LAYOUT = "ResNet in PyTorch"
LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
STEM = {"conv1_0": "conv1.0", "bn1_0": "conv1.1", "conv1_1": "conv1.3"}
STEM |= {"bn1_1": "conv1.4", "conv1_2": "conv1.6"}
SHORTCUT = {"downsample_conv": "downsample.0", "downsample_bn": "downsample.1"}
COUNTER = "num_batches_tracked"
IN_TORCHVISION = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
IN_TIMM = (*IN_TORCHVISION, "resnet200")


def encode(weights: Weights) -> Arrays:
    """State of a torch module: float32 OIHW, and an int64 counter for each normalisation."""
    arrays: Arrays = {}
    for path, array in trees.flatten(weights.params, weights.batch_stats).items():
        name = _name(path)
        arrays[name] = trees.float32(_to_torch(np.asarray(array)))
        if path[-1] == "var":
            # Nobody needs it to compute, but loaders list what is missing.
            arrays[name.replace("running_var", COUNTER)] = np.array(0, np.int64)
    if (layer := trees.classifier(weights.others)) is not None:
        arrays["fc.weight"] = trees.float32(np.transpose(layer[0]))
        arrays["fc.bias"] = trees.float32(layer[1])
    return arrays


def decode(
    arrays: Mapping[str, np.ndarray],
    *,
    projection: bool = False,
    padding: str = "torch",
    mean: tuple[float, ...] = (0.0, 0.0, 0.0),
    std: tuple[float, ...] = (1.0, 1.0, 1.0),
    model: Mapping[str, Any] | None = None,
) -> Weights:
    """Weights of a state; depth, width, stem and selective kernels are told from shapes.

    Args:
      arrays: names without prefixes such as "module.".
      projection: `fc` is the projection of a contrastive method (MoCo v1, v2), not a classifier:
        it becomes the module "head", as `models.heads.MLP` names it; one with BatchNorm is left
        out, since such heads differ between methods.
      padding, mean, std: of `models.resnet.ResNet`; no shape tells them.
      model: arguments of `models.get` where they are known; nothing else is asked then.

    Raises:
      Fault: no ResNet of ours, or arrays that are missing, unexpected or misshapen.
    """
    arrays = {name: a for name, a in arrays.items() if not name.endswith(COUNTER)}
    rest = trees.strip(arrays, "fc.")
    body = {name: a for name, a in arrays.items() if not name.startswith("fc.")}
    if model is None:
        model = _infer(body, padding=padding, mean=mean, std=std)
    others = _projection(rest) if projection else _classifier(rest)
    want = trees.shapes(model, resnets.IMAGE)
    return trees.place(LAYOUT, model, want, body, _name, _to_ours, others)


def config(model: Mapping[str, Any]) -> dict[str, Any]:
    """What `export/pytorch.py` builds the network from, beside the model itself; JSON."""
    module = trees.encoder(model)
    block, stages = RESNETS[model["name"]]
    return {
        **model,
        "family": "resnet",
        "block": block,
        "stages": list(stages),
        "channels": round(64 * module.width),
        "stem": module.stem,
        "sk_ratio": module.sk_ratio,
        "padding": module.padding,
        "mean": list(module.mean),
        "std": list(module.std),
    }


def timm_name(model: Mapping[str, Any]) -> str:
    """The name under which timm builds this network.

    Raises:
      Fault: timm has no such network; the message says why.
    """
    return _known(model, IN_TIMM, "timm")


def timm_args(model: Mapping[str, Any], size: int) -> dict[str, Any]:
    """What `timm.create_model` needs beside the name: nothing."""
    del model, size
    return {}


def torchvision_name(model: Mapping[str, Any]) -> str:
    """The name under which torchvision builds this network; Fault as `timm_name`."""
    return _known(model, IN_TORCHVISION, "torchvision")


def _known(model: Mapping[str, Any], names: tuple[str, ...], library: str) -> str:
    module, name = trees.encoder(model), model["name"]
    reasons = {
        f"{name}, only {', '.join(names)}": name not in names,
        f"width {module.width}": module.width != 1,
        f"stem {module.stem!r}": module.stem != "imagenet",
        f"sk_ratio {module.sk_ratio}": module.sk_ratio != 0,
        f"padding {module.padding!r}": module.padding != "torch",
    }
    if found := [reason for reason, true in reasons.items() if true]:
        message = f"{library} has no {'; no '.join(found)}. Take --format=torch, which brings the"
        raise Fault(f"{message} PyTorch definition along", USAGE)
    return str(name)


def _name(path: Path) -> str:
    """("params", "layer1_0", "bn1", "scale") -> "layer1.0.bn1.weight"."""
    _, *modules, leaf = path
    modules = [STEM.get(m) or SHORTCUT.get(m) or _block(m) for m in modules]
    return ".".join([*modules, LEAVES[leaf]])


def _block(module: str) -> str:
    return module.replace("_", ".") if module.startswith("layer") else module


def _to_torch(array: np.ndarray) -> np.ndarray:
    """HWIO to OIHW."""
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array


def _to_ours(path: Path, array: np.ndarray) -> np.ndarray:
    """OIHW to HWIO."""
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array


def _infer(arrays: Mapping[str, np.ndarray], **hints: Any) -> dict[str, Any]:
    blocks = [match for name in arrays if (match := re.match(r"layer([1-9])\.(\d{1,3})\.", name))]
    stages = [0] * max((int(match[1]) for match in blocks), default=0)
    for match in blocks:
        stages[int(match[1]) - 1] = max(stages[int(match[1]) - 1], int(match[2]) + 1)
    first = arrays.get("conv1.weight", arrays.get("conv1.6.weight"))
    if first is None or first.ndim != 4 or not stages:
        raise Fault(f"{LAYOUT}: no conv1 or no layer1 among {trees.listed(arrays)}", BAD_DATA)
    reduce = [arrays.get(f"layer{i + 1}.0.conv2.reduce_bn.bias") for i in range(len(stages))]
    return resnets.model(
        LAYOUT,
        block="Bottleneck" if "layer1.0.conv3.weight" in arrays else "BasicBlock",
        stages=stages,
        channels=len(first),
        stem="cifar" if "conv1.weight" in arrays and first.shape[-1] == 3 else "imagenet",
        reduced=[bias.size for bias in reduce if bias is not None],
        **hints,
    )


def _classifier(arrays: Arrays) -> dict[str, Tree]:
    if not arrays:
        return {}
    if set(arrays) != {"weight", "bias"} or arrays["weight"].ndim != 2:
        names = trees.listed(f"fc.{name}" for name in arrays)
        message = f"{LAYOUT}: fc is a classifier of one weight and bias, not {names}"
        raise Fault(message, BAD_DATA)
    return {"classifier": trees.dense(arrays["weight"].T, arrays["bias"])}


def _projection(arrays: Arrays) -> dict[str, Tree]:
    """A head of dense layers alone, fc or fc.0 and fc.2 (with ReLU between), as our MLP."""
    layers = sorted({name.rpartition(".")[0] for name in arrays})
    params = {}
    for i, layer in enumerate(layers):
        weight, bias = (arrays.get(f"{layer}.{leaf}".lstrip(".")) for leaf in ("weight", "bias"))
        if weight is None or bias is None or weight.ndim != 2:
            return {}
        params[f"dense{i}"] = {"kernel": trees.float32(weight.T), "bias": trees.float32(bias)}
    return {"head": {"params": params, "batch_stats": {}}} if params else {}
