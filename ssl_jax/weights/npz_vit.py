"""Vision Transformers as Google releases them in npz files; timm reads such files as well.

Names of google-research/vision_transformer are written; those of big_vision ("params/..." and other
counters) are read too. Sources: the names that timm's `models.vision_transformer._load_weights`
and both repositories' checkpoints have.
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
# big_vision's names, and ours.
SAME = {
    "MultiHeadDotProductAttention_0": ATTENTION,
    "MlpBlock_0": "MlpBlock_3",
    "LayerNorm_1": "LayerNorm_2",
}
PREFIXES = ("params/img/", "params/", "opt/target/")
HALF = (0.5, 0.5, 0.5)


def encode(weights: Weights, size: int = 224) -> Arrays:
    """The file's arrays, float32, for images of `size` pixels a side; positions as `torch_vit`."""
    heads = trees.encoder(weights.model).heads
    flat = trees.flatten(weights.params, weights.batch_stats)
    flat[vits.TABLE] = vits.table(weights, size)
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
    """Weights of a file; width, depth, heads and patch size are told from shapes.

    Args:
      pool: what features are, "token" or "mean".
      size: pixels a side, to be compared with the table of positions.
      mean, std: of the images' channels; Google's ViTs are trained on images in [-1, 1].
      model: arguments of `models.get` where they are known; nothing else is asked then.

    Raises:
      Fault: no ViT of ours, or arrays that are missing, unexpected or misshapen.
    """
    body = _plain(arrays)
    if "cls" not in body:
        message = f"{LAYOUT}: no class token (cls), which every ViT of ours has"
        raise Fault(message, BAD_DATA)
    table = vits.take_table(LAYOUT, body, POSITIONS)
    if table.shape[0] ** 0.5 % 1 == 0:
        # big_vision adds positions before the class token joins.
        table = np.concatenate([np.zeros_like(table[:1]), table])
    query = body.get(f"Transformer/encoderblock_0/{ATTENTION}/query/kernel", np.zeros(1))
    hidden = body.get("Transformer/encoderblock_0/MlpBlock_3/Dense_0/bias", np.zeros(1))
    if model is None:
        model = vits.model(
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
    body |= vits.parameter(LAYOUT, model, POSITIONS, table)
    head = trees.strip(body, "head/")
    body = {name: a for name, a in body.items() if not name.startswith(("head/", "pre_logits/"))}
    others = {}
    if set(head) == {"kernel", "bias"} and not any("pre_logits" in name for name in arrays):
        others = {"classifier": trees.dense(head["kernel"], head["bias"])}
    want = vits.shapes(model, len(table))
    return trees.place(LAYOUT, model, want, body, _name, _to_ours, others)


def _plain(arrays: Mapping[str, np.ndarray]) -> Arrays:
    """Arrays by google-research/vision_transformer's names."""
    for prefix in PREFIXES:
        if f"{prefix}embedding/kernel" in arrays:
            arrays = trees.strip(arrays, prefix)
            break
    plain = {}
    for name, array in arrays.items():
        for theirs, ours in SAME.items():
            name = name.replace(f"/{theirs}/", f"/{ours}/")
        plain[POSITIONS if name == "pos_embedding" else name] = array
    return plain


def _name(path: Path) -> str:
    """("params", "blocks_0", "mlp", "fc1", "bias") -> ".../encoderblock_0/MlpBlock_3/...bias"."""
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
    if path == vits.TABLE:
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
