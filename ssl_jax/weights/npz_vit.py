"""Encodes and decodes Vision Transformers with the names of Google's npz files, as timm reads them.

`encode` writes the names of google-research/vision_transformer. `decode` reads those and the names
of big_vision ("params/..." and other numbers of layers).

Source: timm's `models.vision_transformer._load_weights`, and the checkpoints of both repositories.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from ssl_jax.errors import BAD_DATA, Fault
from ssl_jax.weights import Arrays, Weights, trees, vits
from ssl_jax.weights.trees import Path

LAYOUT = "ViT in Google's npz"
POSITIONS = "Transformer/posembed_input/pos_embedding"
ATTENTION = "MultiHeadDotProductAttention_1"
PARTS = {"q": "query", "k": "key", "v": "value", "proj": "out"}
MODULES = {
    "norm1": "LayerNorm_0",
    "norm2": "LayerNorm_2",
    "fc1": "MlpBlock_3/Dense_0",
    "fc2": "MlpBlock_3/Dense_1",
}
# big_vision's names, and those of google-research/vision_transformer.
BIG_VISION = {
    "MultiHeadDotProductAttention_0": ATTENTION,
    "MlpBlock_0": "MlpBlock_3",
    "LayerNorm_1": "LayerNorm_2",
}
PREFIXES = ("params/img/", "params/", "opt/target/")
HALF = (0.5, 0.5, 0.5)


def encode(weights: Weights, size: int = 224) -> Arrays:
    """Returns the file's arrays, float32, for images of `size` pixels a side.

    Positions are written as `torch_vit.encode` writes them.

    Raises:
      Fault: if the positions do not fit images of this size.
    """
    heads = trees.encoder(weights.model).heads
    flat = trees.flatten_paths(weights.params, weights.batch_stats)
    flat[vits.POSITION_PATH] = vits.position_table(weights, size)
    arrays = {_name(path): _to_theirs(path, np.asarray(a), heads) for path, a in flat.items()}
    if (layer := trees.classifier(weights.others)) is not None:
        arrays["head/kernel"], arrays["head/bias"] = layer
    return {name: trees.float32(array) for name, array in arrays.items()}


def decode(
    arrays: Mapping[str, np.ndarray],
    *,
    pool: str = "token",
    size: int | None = None,
    mean: tuple[float, ...] = HALF,
    std: tuple[float, ...] = HALF,
    model: Mapping[str, Any] | None = None,
) -> Weights:
    """Returns the weights of a file; infers width, depth, heads and patch size from shapes.

    Args:
      arrays: arrays by the names of the file.
      pool: source of the features, "token" or "mean".
      size: side of the images in pixels; compared with the position table.
      mean, std: per-channel statistics of the images. The default standardises to [-1, 1], the
        range that Google's ViTs are trained on.
      model: arguments of `models.get`, if known; the other arguments are then ignored.

    Raises:
      Fault: if the network is not a supported ViT, or if arrays are missing, unexpected or
        misshapen.
    """
    body = _rename_big_vision(arrays)
    if "cls" not in body:
        message = f"{LAYOUT}: no class token (cls); ViTs without one are not supported"
        raise Fault(message, BAD_DATA)
    table = vits.pop_position_table(LAYOUT, body, POSITIONS)
    if table.shape[0] ** 0.5 % 1 == 0:
        # big_vision adds positions before it prepends the class token, so that token has none.
        table = np.concatenate([np.zeros_like(table[:1]), table])
    query = body.get(f"Transformer/encoderblock_0/{ATTENTION}/query/kernel", np.zeros(1))
    hidden = body.get("Transformer/encoderblock_0/MlpBlock_3/Dense_0/bias", np.zeros(1))
    if model is None:
        model = vits.infer_model(
            LAYOUT,
            kernel=body.get("embedding/kernel", np.zeros(1)).shape,
            depth=len({m[1] for name in body if (m := re.search(r"block_(\d+)/", name))}),
            hidden=hidden.size,
            table=table,
            heads=query.shape[1] if query.ndim == 3 else None,
            pool=pool,
            size=size,
            mean=mean,
            std=std,
        )
    body |= vits.position_parameter(LAYOUT, model, POSITIONS, table)
    head = trees.strip_prefix(body, "head/")
    body = {name: a for name, a in body.items() if not name.startswith(("head/", "pre_logits/"))}
    others = {}
    if set(head) == {"kernel", "bias"} and not any("pre_logits" in name for name in arrays):
        others = {"classifier": trees.dense_tree(head["kernel"], head["bias"])}
    expected = vits.shapes(model, len(table))
    return trees.assemble(LAYOUT, model, expected, body, _name, _to_ours, others)


def _rename_big_vision(arrays: Mapping[str, np.ndarray]) -> Arrays:
    """Returns the arrays by the names of google-research/vision_transformer."""
    for prefix in PREFIXES:
        if f"{prefix}embedding/kernel" in arrays:
            arrays = trees.strip_prefix(arrays, prefix)
            break
    renamed = {}
    for name, array in arrays.items():
        for old, new in BIG_VISION.items():
            name = name.replace(f"/{old}/", f"/{new}/")
        renamed[POSITIONS if name == "pos_embedding" else name] = array
    return renamed


def _name(path: Path) -> str:
    """Maps ("params", "blocks_0", "mlp", "fc1", "bias") to "...block_0/MlpBlock_3/Dense_0/bias"."""
    _, *modules, leaf = path
    if modules and (match := re.fullmatch(r"blocks_(\d+)", modules[0])):
        last = modules[-1]
        part = f"{ATTENTION}/{PARTS[last]}" if last in PARTS else MODULES[last]
        return f"Transformer/encoderblock_{match[1]}/{part}/{leaf}"
    special = {"cls_token": "cls", "pos_embed": POSITIONS}
    start = {"patch_embed": "embedding", "norm": "Transformer/encoder_norm"}
    return f"{start[modules[0]]}/{leaf}" if modules else special[leaf]


def _to_theirs(path: Path, array: np.ndarray, heads: int) -> np.ndarray:
    if path[-1] == "cls_token":
        return array.reshape(1, 1, -1)
    if path == vits.POSITION_PATH:
        return array[None]
    if path[-2] in ("q", "k", "v"):
        return array.reshape(*array.shape[:-1], heads, -1)
    return array.reshape(heads, -1, array.shape[-1]) if path[-2:] == ("proj", "kernel") else array


def _to_ours(path: Path, array: np.ndarray) -> np.ndarray:
    if path[-1] == "cls_token":
        return array.reshape(-1)
    if path[-2] in ("q", "k", "v") and array.ndim > 1:
        return array.reshape(*array.shape[:-2], -1)
    if path[-2:] == ("proj", "kernel") and array.ndim == 3:
        return array.reshape(-1, array.shape[-1])
    return array
