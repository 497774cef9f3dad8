"""ResNets of SimCLR and SimCLR v2 as google-research/simclr checkpoints name them.

There layers have numbers in the order in which they were built: conv2d, conv2d_1, ... and
batch_normalization, batch_normalization_1, ...; a block builds its shortcut first. Source:
google-research/simclr, resnet.py and model_util.py (TensorFlow 1; the SavedModels of its code for
TensorFlow 2 have other names).
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
    """The variables of the network and of the modules behind it that SimCLR has, float32."""
    names = _names(weights.model)
    flat = trees.flatten(weights.params, weights.batch_stats)
    arrays = {_name(names, path): np.asarray(array) for path, array in flat.items()}
    if (layer := trees.classifier(weights.others)) is not None:
        arrays[f"{CLASSIFIER}kernel"], arrays[f"{CLASSIFIER}bias"] = layer
    head = weights.others.get("head", {"params": {}, "batch_stats": {}})
    for (_, module, leaf), array in trees.flatten(head["params"], head["batch_stats"]).items():
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
    """Weights of a checkpoint; depth, width and selective kernels are told from shapes.

    Slots of optimizers are left out. So is a classifier behind a projection head of three layers:
    SimCLR v2's stands inside of that head (ft_proj_selector), and the file does not say where.

    Args:
      mean, std: of the images' channels; SimCLR's are not standardised.
      model: arguments of `models.get` where they are known.

    Raises:
      Fault: no ResNet of ours, or arrays that are missing, unexpected or misshapen.
    """
    leaves = (*LEAVES.values(), "bias")
    kept = {name: a for name, a in arrays.items() if name.split("/")[-1] in leaves}
    body = {name: a for name, a in kept.items() if name.startswith(BODY)}
    if model is None:
        model = _infer(body, mean=mean, std=std)
    names = _names(model)
    others = _head(kept)
    depth = len(others["head"]["params"]) // 2 if others else 0
    if f"{CLASSIFIER}kernel" in kept and depth < 3:
        kernel, bias = (kept.get(f"{CLASSIFIER}{n}", np.zeros(0)) for n in ("kernel", "bias"))
        others["classifier"] = trees.dense(kernel, bias)
    want = trees.shapes(model, resnets.IMAGE)
    return trees.place(
        LAYOUT, model, want, body, lambda path: _name(names, path), lambda _, a: a, others
    )


def _names(model: Mapping[str, Any]) -> dict[tuple[str, ...], str]:
    """SimCLR's names of a network's layers, by ours."""
    convolutions, norms = _layers(model)
    found = {}
    for kind, layers in (("conv2d", convolutions), ("batch_normalization", norms)):
        for i, layer in enumerate(layers):
            found[layer] = f"{BODY}{kind}{f'_{i}' if i else ''}"
    return found


def _layers(model: Mapping[str, Any]) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """(convolutions, normalisations), each in the order in which SimCLR builds them."""
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
    at: tuple[str, ...], block: str, shortcut: bool, sk: bool
) -> Iterator[tuple[tuple[str, ...], tuple[str, ...] | None]]:
    if shortcut:
        yield (*at, "downsample_conv"), (*at, "downsample_bn")
    for i in range(1, 4 if block == "Bottleneck" else 3):
        if sk and i == 2:
            inner = (*at, "conv2")
            yield (*inner, "conv"), (*inner, "bn")
            yield (*inner, "reduce"), (*inner, "reduce_bn")
            yield (*inner, "expand"), None
        else:
            yield (*at, f"conv{i}"), (*at, f"bn{i}")


def _name(names: Mapping[tuple[str, ...], str], path: Path) -> str:
    return f"{names[path[1:-1]]}/{LEAVES[path[-1]]}"


def _infer(arrays: Mapping[str, np.ndarray], **hints: Any) -> dict[str, Any]:
    """The model whose convolutions are as many: no two of ours have the same number."""
    kernels = [name for name in arrays if re.fullmatch(rf"{BODY}conv2d(_\d+)?/kernel", name)]
    first = arrays.get(f"{BODY}conv2d/kernel", np.zeros(1))
    if first.ndim != 4:
        raise Fault(f"{LAYOUT}: no first convolution among {trees.listed(arrays)}", BAD_DATA)
    for name, sk, stem in itertools.product(RESNETS, (False, True), ("imagenet", "cifar")):
        block, stages = RESNETS[name]
        model = {"name": name, "stem": stem, "sk_ratio": float(sk)}
        fits = len(_layers(model)[0]) == len(kernels) and (len(first) == 7) == (
            stem == "imagenet" and not sk
        )
        if not fits or (sk and block == "BasicBlock"):
            continue
        names = _names(model)
        gates = (
            [(f"layer{i + 1}_0", "conv2", "reduce_bn") for i in range(len(stages))] if sk else ()
        )
        return resnets.model(
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
        f"{message} (SimCLR's 18 and 34 project in their first block, ours do not)", BAD_DATA
    )


def _head(arrays: Mapping[str, np.ndarray]) -> dict[str, Tree]:
    """The contrastive head as our ProjectionHead: what it has must be what that has."""
    tree: Tree = {"params": {}, "batch_stats": {}}
    for name, array in arrays.items():
        if match := re.fullmatch(HEAD, name):
            number, kind, leaf = match.groups()
            layer = f"{'dense' if kind == 'dense' else 'bn'}{number}"
            ours = OURS.get(leaf, leaf)
            collection = "batch_stats" if ours in STATISTICS else "params"
            tree[collection].setdefault(layer, {})[ours] = trees.float32(array)
    return {"head": tree} if tree["params"] else {}
