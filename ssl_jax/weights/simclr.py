"""Encodes and decodes ResNets with the names of google-research/simclr checkpoints (v1 and v2).

These checkpoints number layers in the order of construction: conv2d, conv2d_1, ... and
batch_normalization, batch_normalization_1, ... A block constructs its shortcut first.

Source: google-research/simclr, resnet.py and model_util.py (TensorFlow 1). The SavedModels of the
code for TensorFlow 2 have other names and are not supported.
"""

import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ssl_jax.errors import BAD_DATA, Fault
from ssl_jax.models import RESNETS
from ssl_jax.weights import Arrays, Tree, Weights, resnets, trees
from ssl_jax.weights.trees import Path

LAYOUT = "SimCLR checkpoint"
BODY = "base_model/"
CLASSIFIER = "head_supervised/linear_layer/dense/"
HEAD = r"head_contrastive/(?:nl|l)_(\d+)/(dense|batch_normalization)/(\w+)"
LEAVES = {
    "kernel": "kernel",
    "scale": "gamma",
    "bias": "beta",
    "mean": "moving_mean",
    "var": "moving_variance",
}
OURS = {theirs: ours for ours, theirs in LEAVES.items()}
KINDS = {"dense": "dense", "bn": "batch_normalization"}
STATISTICS = ("mean", "var")


def encode(weights: Weights) -> Arrays:
    """Returns the variables of the encoder, the classifier and the projection head, float32."""
    names = _layer_names(weights.model)
    flat = trees.flatten_paths(weights.params, weights.batch_stats)
    arrays = {_name(names, path): np.asarray(array) for path, array in flat.items()}
    if (layer := trees.classifier(weights.others)) is not None:
        arrays[f"{CLASSIFIER}kernel"], arrays[f"{CLASSIFIER}bias"] = layer
    head = weights.others.get("head", {"params": {}, "batch_stats": {}})
    head_arrays = trees.flatten_paths(head["params"], head["batch_stats"])
    for (_, module, leaf), array in head_arrays.items():
        kind = module.rstrip("0123456789")
        number = module.removeprefix(kind)
        arrays[f"head_contrastive/nl_{number}/{KINDS[kind]}/{LEAVES[leaf]}"] = np.asarray(array)
    return {name: trees.float32(array) for name, array in arrays.items()}


def decode(
    arrays: Mapping[str, np.ndarray],
    *,
    mean: tuple[float, ...] = (0.0, 0.0, 0.0),
    std: tuple[float, ...] = (1.0, 1.0, 1.0),
    model: Mapping[str, Any] | None = None,
) -> Weights:
    """Returns the weights of a checkpoint; infers depth, width and selective kernels from shapes.

    Optimizer slots are left out. A classifier behind a projection head of three layers is left
    out too: SimCLR v2 attaches it inside the head (ft_proj_selector), and the file does not state
    at which layer.

    Args:
      arrays: variables by name.
      mean, std: per-channel statistics of the images; SimCLR does not standardise images.
      model: arguments of `models.get`, if known; `mean` and `std` are then ignored.

    Raises:
      Fault: if the network is not a supported ResNet, or if arrays are missing, unexpected or
        misshapen.
    """
    leaves = (*LEAVES.values(), "bias")
    variables = {name: a for name, a in arrays.items() if name.split("/")[-1] in leaves}
    body = {name: a for name, a in variables.items() if name.startswith(BODY)}
    if model is None:
        model = _infer(body, mean=mean, std=std)
    names = _layer_names(model)
    others = _head(variables)
    depth = len(others["head"]["params"]) // 2 if others else 0
    if f"{CLASSIFIER}kernel" in variables and depth < 3:
        kernel, bias = (variables.get(f"{CLASSIFIER}{n}", np.zeros(0)) for n in ("kernel", "bias"))
        others["classifier"] = trees.dense_tree(kernel, bias)
    expected = trees.shapes(model, resnets.IMAGE)
    return trees.assemble(
        LAYOUT, model, expected, body, lambda path: _name(names, path), lambda _, a: a, others
    )


def _layer_names(model: Mapping[str, Any]) -> dict[tuple[str, ...], str]:
    """Returns SimCLR's name of every layer, by the layer's path in this project."""
    convolutions, norms = _layers(model)
    names = {}
    for kind, layers in (("conv2d", convolutions), ("batch_normalization", norms)):
        for i, layer in enumerate(layers):
            names[layer] = f"{BODY}{kind}{f'_{i}' if i else ''}"
    return names


def _layers(model: Mapping[str, Any]) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """Returns (convolutions, normalisations), each in SimCLR's order of construction."""
    module = trees.encoder(model)
    block, stages = RESNETS[model["name"]]
    pairs: list[tuple[tuple[str, ...], tuple[str, ...] | None]] = []
    if module.sk_ratio and module.stem == "imagenet":
        pairs += [((f"conv1_{i}",), (f"bn1_{i}",)) for i in range(2)] + [(("conv1_2",), ("bn1",))]
    else:
        pairs.append((("conv1",), ("bn1",)))
    for i, size in enumerate(stages):
        for j in range(size):
            shortcut = j == 0 and (i > 0 or block == "Bottleneck")
            pairs += _block((f"layer{i + 1}_{j}",), block, shortcut, bool(module.sk_ratio))
    return [conv for conv, _ in pairs], [norm for _, norm in pairs if norm]


def _block(
    path: tuple[str, ...], block: str, shortcut: bool, sk: bool
) -> Iterator[tuple[tuple[str, ...], tuple[str, ...] | None]]:
    """Yields (convolution, its normalisation or None) of the block at `path`."""
    if shortcut:
        yield (*path, "downsample_conv"), (*path, "downsample_bn")
    for i in range(1, 4 if block == "Bottleneck" else 3):
        if sk and i == 2:
            inner = (*path, "conv2")
            yield (*inner, "conv"), (*inner, "bn")
            yield (*inner, "reduce"), (*inner, "reduce_bn")
            yield (*inner, "expand"), None
        else:
            yield (*path, f"conv{i}"), (*path, f"bn{i}")


def _name(names: Mapping[tuple[str, ...], str], path: Path) -> str:
    return f"{names[path[1:-1]]}/{LEAVES[path[-1]]}"


def _infer(arrays: Mapping[str, np.ndarray], **hints: Any) -> dict[str, Any]:
    """Infers the model from the number of convolutions, which differs between all models."""
    kernels = [name for name in arrays if re.fullmatch(rf"{BODY}conv2d(_\d+)?/kernel", name)]
    first = arrays.get(f"{BODY}conv2d/kernel", np.zeros(1))
    if first.ndim != 4:
        raise Fault(f"{LAYOUT}: no first convolution among {trees.list_names(arrays)}", BAD_DATA)
    for name, sk, stem in itertools.product(RESNETS, (False, True), ("imagenet", "cifar")):
        block, stages = RESNETS[name]
        model = {"name": name, "stem": stem, "sk_ratio": float(sk)}
        fits = len(_layers(model)[0]) == len(kernels) and (len(first) == 7) == (
            stem == "imagenet" and not sk
        )
        if not fits or (sk and block == "BasicBlock"):
            continue
        names = _layer_names(model)
        gates = (
            [(f"layer{i + 1}_0", "conv2", "reduce_bn") for i in range(len(stages))] if sk else ()
        )
        return resnets.infer_model(
            LAYOUT,
            block=block,
            stages=stages,
            channels=first.shape[-1] * (2 if sk and stem == "imagenet" else 1),
            stem=stem,
            reduced=[arrays.get(f"{names[g]}/beta", np.zeros(0)).size for g in gates],
            padding="simclr",
            **hints,
        )
    message = f"{LAYOUT}: {len(kernels)} convolutions fit none of {', '.join(RESNETS)}"
    raise Fault(
        f"{message}. SimCLR's ResNet-18 and -34 are not supported: their first block projects its "
        "shortcut",
        BAD_DATA,
    )


def _head(arrays: Mapping[str, np.ndarray]) -> dict[str, Tree]:
    """Returns {"head": tree} with the names of `models.heads.ProjectionHead`, or {}."""
    tree: Tree = {"params": {}, "batch_stats": {}}
    for name, array in arrays.items():
        if match := re.fullmatch(HEAD, name):
            number, kind, leaf = match.groups()
            layer = f"{'dense' if kind == 'dense' else 'bn'}{number}"
            ours = OURS.get(leaf, leaf)
            collection = "batch_stats" if ours in STATISTICS else "params"
            tree[collection].setdefault(layer, {})[ours] = trees.float32(array)
    return {"head": tree} if tree["params"] else {}
