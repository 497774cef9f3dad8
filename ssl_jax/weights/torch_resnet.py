"""Encodes and decodes ResNets with torchvision's names, which timm and most PyTorch releases use.

torchvision has no selective kernels and no ResNet-D stem. This project names their layers
conv2.conv, conv2.bn, conv2.reduce, conv2.reduce_bn, conv2.expand, and conv1.0, conv1.1, conv1.3,
conv1.4, conv1.6.
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
    """Returns the state of a torch module: float32 OIHW, and an int64 counter per BatchNorm."""
    arrays: Arrays = {}
    for path, array in trees.flatten_paths(weights.params, weights.batch_stats).items():
        name = _name(path)
        arrays[name] = trees.float32(_to_torch(np.asarray(array)))
        if path[-1] == "var":
            # Inference does not use the counter, but loaders report it if it is missing.
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
    """Returns the weights of a state; infers depth, width, stem and selective kernels from shapes.

    Args:
      arrays: arrays by names without prefixes such as "module.".
      projection: True if `fc` is the projection of a contrastive method (MoCo v1, v2) and not a
        classifier. The projection becomes the module "head" with the names of `models.heads.MLP`.
        A projection with BatchNorm is left out, since such heads differ between methods.
      padding, mean, std: fields of `models.resnet.ResNet`, which shapes do not determine.
      model: arguments of `models.get`, if known; `padding`, `mean` and `std` are then ignored.

    Raises:
      Fault: if the network is not a supported ResNet, or if arrays are missing, unexpected or
        misshapen.
    """
    arrays = {name: a for name, a in arrays.items() if not name.endswith(COUNTER)}
    fc = trees.strip_prefix(arrays, "fc.")
    body = {name: a for name, a in arrays.items() if not name.startswith("fc.")}
    if model is None:
        model = _infer(body, padding=padding, mean=mean, std=std)
    others = _projection(fc) if projection else _classifier(fc)
    expected = trees.shapes(model, resnets.IMAGE)
    return trees.assemble(LAYOUT, model, expected, body, _name, _to_ours, others)


def config(model: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the JSON config from which `export/pytorch.py` builds the network."""
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
    """Returns timm's name of this network.

    Raises:
      Fault: if timm has no such network; the message names the reasons.
    """
    return _library_name(model, IN_TIMM, "timm")


def timm_args(model: Mapping[str, Any], size: int) -> dict[str, Any]:
    """Returns {}: `timm.create_model` needs only the name of a ResNet."""
    del model, size
    return {}


def torchvision_name(model: Mapping[str, Any]) -> str:
    """Returns torchvision's name of this network.

    Raises:
      Fault: if torchvision has no such network; the message names the reasons.
    """
    return _library_name(model, IN_TORCHVISION, "torchvision")


def _library_name(model: Mapping[str, Any], names: tuple[str, ...], library: str) -> str:
    module, name = trees.encoder(model), model["name"]
    differences = {
        f"{name}, only {', '.join(names)}": name not in names,
        f"width {module.width}": module.width != 1,
        f"stem {module.stem!r}": module.stem != "imagenet",
        f"sk_ratio {module.sk_ratio}": module.sk_ratio != 0,
        f"padding {module.padding!r}": module.padding != "torch",
    }
    if missing := [text for text, differs in differences.items() if differs]:
        message = f"{library} has no {'; no '.join(missing)}. Use --format=torch, which includes"
        raise Fault(f"{message} the PyTorch definition", USAGE)
    return str(name)


def _name(path: Path) -> str:
    """Maps ("params", "layer1_0", "bn1", "scale") to "layer1.0.bn1.weight"."""
    _, *modules, leaf = path
    modules = [STEM.get(m) or SHORTCUT.get(m) or _block(m) for m in modules]
    return ".".join([*modules, LEAVES[leaf]])


def _block(module: str) -> str:
    return module.replace("_", ".") if module.startswith("layer") else module


def _to_torch(array: np.ndarray) -> np.ndarray:
    """Transposes kernels from HWIO to OIHW."""
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array


def _to_ours(path: Path, array: np.ndarray) -> np.ndarray:
    """Transposes kernels from OIHW to HWIO."""
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array


def _infer(arrays: Mapping[str, np.ndarray], **hints: Any) -> dict[str, Any]:
    blocks = [match for name in arrays if (match := re.match(r"layer([1-9])\.(\d{1,3})\.", name))]
    stages = [0] * max((int(match[1]) for match in blocks), default=0)
    for match in blocks:
        stages[int(match[1]) - 1] = max(stages[int(match[1]) - 1], int(match[2]) + 1)
    first = arrays.get("conv1.weight", arrays.get("conv1.6.weight"))
    if first is None or first.ndim != 4 or not stages:
        raise Fault(f"{LAYOUT}: no conv1 or no layer1 among {trees.list_names(arrays)}", BAD_DATA)
    gates = [arrays.get(f"layer{i + 1}.0.conv2.reduce_bn.bias") for i in range(len(stages))]
    return resnets.infer_model(
        LAYOUT,
        block="Bottleneck" if "layer1.0.conv3.weight" in arrays else "BasicBlock",
        stages=stages,
        channels=len(first),
        stem="cifar" if "conv1.weight" in arrays and first.shape[-1] == 3 else "imagenet",
        reduced=[bias.size for bias in gates if bias is not None],
        **hints,
    )


def _classifier(arrays: Arrays) -> dict[str, Tree]:
    if not arrays:
        return {}
    if set(arrays) != {"weight", "bias"} or arrays["weight"].ndim != 2:
        names = trees.list_names(f"fc.{name}" for name in arrays)
        message = f"{LAYOUT}: the classifier fc must have one weight and one bias, but has {names}"
        raise Fault(message, BAD_DATA)
    return {"classifier": trees.dense_tree(arrays["weight"].T, arrays["bias"])}


def _projection(arrays: Arrays) -> dict[str, Tree]:
    """Returns {"head": tree} with the names of `models.heads.MLP`.

    Only dense layers are supported: fc alone, or fc.0 and fc.2 with a ReLU between them. Other
    heads give {}.
    """
    layers = sorted({name.rpartition(".")[0] for name in arrays})
    params = {}
    for i, layer in enumerate(layers):
        weight, bias = (arrays.get(f"{layer}.{leaf}".lstrip(".")) for leaf in ("weight", "bias"))
        if weight is None or bias is None or weight.ndim != 2:
            return {}
        params[f"dense{i}"] = {"kernel": trees.float32(weight.T), "bias": trees.float32(bias)}
    return {"head": {"params": params, "batch_stats": {}}} if params else {}
