"""Encodes and decodes Vision Transformers with timm's names, as in DeiT, DINO, MAE and MoCo v3."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from ssl_jax.errors import BAD_DATA, USAGE, Fault
from ssl_jax.models import VITS
from ssl_jax.weights import Arrays, Tree, Weights, trees, vits
from ssl_jax.weights.trees import Path

LAYOUT = "ViT in PyTorch"
# Prefixes of MAE's decoder, which shares a module with the encoder.
MAE_DECODER = ("decoder_", "mask_token")
_PATCHES, _HIDDEN = "patch_embed.proj.weight", "blocks.0.mlp.fc1.weight"
_MISSING = np.zeros(1)
TIMM_POOLS = {"token": "token", "mean": "avg"}  # timm's names by those of this project
# timm's most similar model, where it has none of the same name.
TIMM_NAMES = {"vit_micro": "vit_tiny", "vit_small_moco": "vit_small"}


def encode(weights: Weights, size: int = 224) -> Arrays:
    """Returns the state of timm's module, float32, for images of `size` pixels a side.

    Sine-cosine positions are written as a table whose first row, that of the class token, is zero.
    Learned positions are written unchanged.

    Raises:
      Fault: if the positions do not fit images of this size.
    """
    arrays: Arrays = {}
    flat = trees.flatten_paths(weights.params, weights.batch_stats)
    flat[vits.POSITION_PATH] = vits.position_table(weights, size)
    for path, array in flat.items():
        arrays[_name(path)] = _to_torch(path, np.asarray(array))
    for name in [n for n in arrays if n.endswith("[q]")]:
        parts = [arrays.pop(f"{name[:-3]}[{part}]") for part in "qkv"]
        arrays[name[:-3]] = np.concatenate(parts)
    if (layer := trees.classifier(weights.others)) is not None:
        arrays["head.weight"], arrays["head.bias"] = layer[0].T, layer[1]
    return {name: trees.float32(array) for name, array in arrays.items()}


def decode(
    arrays: Mapping[str, np.ndarray],
    *,
    projection: bool = False,
    heads: int | None = None,
    pool: str = "token",
    size: int | None = None,
    mean: tuple[float, ...] = (0.0, 0.0, 0.0),
    std: tuple[float, ...] = (1.0, 1.0, 1.0),
    model: Mapping[str, Any] | None = None,
) -> Weights:
    """Returns the weights of a state; infers width, depth and patch size from shapes.

    Args:
      arrays: arrays by names without prefixes such as "module.".
      projection: True if `head` is the projection of a contrastive method; it is then left out.
      heads: number of attention heads. None selects the model of the same width and depth; if
        there are two, the one with 64 features per head.
      pool: source of the features, "token" or "mean".
      size: side of the images in pixels; compared with the position table.
      mean, std: per-channel statistics of the images.
      model: arguments of `models.get`, if known; `heads`, `pool`, `size`, `mean` and `std` are
        then ignored.

    Raises:
      Fault: if the network is not a supported ViT, or if arrays are missing, unexpected or
        misshapen.
    """
    body: Arrays = {}
    for name, array in arrays.items():
        if name.startswith(("head.", *MAE_DECODER)):
            continue
        if ".qkv." in name and array.ndim and len(array) % 3 == 0:
            parts = zip("qkv", np.split(array, 3), strict=True)
            body |= {f"{name}[{part}]": third for part, third in parts}
        else:
            body[name] = array
    if any(name.startswith("fc_norm.") for name in arrays):
        message = f"{LAYOUT}: fc_norm normalises after pooling, which is not supported"
        raise Fault(f"{message}. Use weights trained with fc_norm=False", BAD_DATA)
    table = vits.pop_position_table(LAYOUT, body, "pos_embed")
    if model is None:
        patches, hidden = (body.get(n, _MISSING) for n in (_PATCHES, _HIDDEN))
        model = vits.infer_model(
            LAYOUT,
            kernel=_to_ours(("kernel",), patches).shape,
            depth=len({m[1] for name in body if (m := re.match(r"blocks\.(\d+)\.", name))}),
            hidden=len(hidden),
            table=table,
            heads=heads,
            pool=pool,
            size=size,
            mean=mean,
            std=std,
        )
    body |= vits.position_parameter(LAYOUT, model, "pos_embed", table)
    others = {} if projection else _classifier(trees.strip_prefix(arrays, "head."))
    expected = vits.shapes(model, len(table))
    return trees.assemble(LAYOUT, model, expected, body, _name, _to_ours, others)


def config(model: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the JSON config from which `export/pytorch.py` builds the network."""
    module = trees.encoder(model)
    fields = ("patch_size", "width", "depth", "heads", "mlp_ratio", "pool")
    return {
        **model,
        "family": "vit",
        **{field: getattr(module, field) for field in fields},
        "mean": list(module.mean),
        "std": list(module.std),
    }


def timm_name(model: Mapping[str, Any]) -> str:
    """Returns timm's name of this network; `timm.create_model` also needs `timm_args`.

    Raises:
      Fault: if no such model exists.
    """
    trees.encoder(model)
    return f"{TIMM_NAMES.get(model['name'], model['name'])}_patch16_224"


def timm_args(model: Mapping[str, Any], size: int) -> dict[str, Any]:
    """Returns the arguments of `timm.create_model` for images of `size` pixels a side.

    Arguments that equal timm's defaults are left out.
    """
    module = trees.encoder(model)
    defaults = VITS[TIMM_NAMES.get(model["name"], model["name"])]
    candidates = {
        "img_size": (size, 224),
        "patch_size": (module.patch_size, 16),
        "embed_dim": (module.width, defaults["width"]),
        "depth": (module.depth, defaults["depth"]),
        "num_heads": (module.heads, defaults["heads"]),
        "mlp_ratio": (module.mlp_ratio, 4),
        "global_pool": (TIMM_POOLS[module.pool], "token"),
    }
    args = {name: value for name, (value, default) in candidates.items() if value != default}
    # With mean pooling, timm normalises after the mean by default; this project does so before.
    return args | ({"fc_norm": False} if module.pool == "mean" else {})


def torchvision_name(model: Mapping[str, Any]) -> str:
    """Raises Fault, since torchvision's ViTs have other layers and names."""
    message = f"torchvision has no {model['name']}: its ViTs have other layers. Use --format=timm"
    raise Fault(f"{message}, or --format=torch, which includes the PyTorch definition", USAGE)


def _name(path: Path) -> str:
    """Maps ("params", "blocks_0", "attn", "q", "kernel") to "blocks.0.attn.qkv.weight[q]".

    The suffix in brackets names a third of the fused array.
    """
    _, *modules, leaf = path
    if not modules:
        return leaf
    name = {"kernel": "weight", "scale": "weight"}.get(leaf, leaf)
    if modules[-1] in ("q", "k", "v"):
        name, modules = f"{name}[{modules[-1]}]", [*modules[:-1], "qkv"]
    if modules == ["patch_embed"]:
        modules = ["patch_embed", "proj"]
    return ".".join([*modules, name]).replace("blocks_", "blocks.")


def _to_torch(path: Path, array: np.ndarray) -> np.ndarray:
    if path[-1] == "cls_token":
        return array.reshape(1, 1, -1)
    if path == vits.POSITION_PATH:
        return array[None]
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T


def _to_ours(path: Path, array: np.ndarray) -> np.ndarray:
    if path[-1] == "cls_token":
        return array.reshape(-1)
    if path == vits.POSITION_PATH:
        return array
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


def _classifier(arrays: Arrays) -> dict[str, Tree]:
    if not arrays:
        return {}
    if set(arrays) != {"weight", "bias"} or arrays["weight"].ndim != 2:
        names = trees.list_names(f"head.{name}" for name in arrays)
        message = f"{LAYOUT}: the classifier head must have one weight and one bias, not {names}"
        raise Fault(message, BAD_DATA)
    return {"classifier": trees.dense_tree(arrays["weight"].T, arrays["bias"])}
