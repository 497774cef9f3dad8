"""Vision Transformers under timm's names, which DeiT, DINO, MAE and MoCo v3 have as well."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from ssl_jax.errors import BAD_DATA, USAGE, Fault
from ssl_jax.models import VITS
from ssl_jax.weights import Arrays, Tree, Weights, trees, vits
from ssl_jax.weights.trees import Path

LAYOUT = "ViT in PyTorch"
# Of MAE's decoder, which stands beside the encoder in one module.
BESIDE = ("decoder_", "mask_token")
_PATCHES, _HIDDEN = "patch_embed.proj.weight", "blocks.0.mlp.fc1.weight"
_NONE = np.zeros(1)
POOLS = {"token": "token", "mean": "avg"}  # ours: timm's
TIMM = {"vit_micro": "vit_tiny", "vit_small_moco": "vit_small"}  # the nearest, where names differ


def encode(weights: Weights, size: int = 224) -> Arrays:
    """State of timm's module, float32, for images of `size` pixels a side.

    Sine-cosine positions are written as the table that they are, with a row of zeros for the class
    token; learned ones as they were learned.
    """
    arrays: Arrays = {}
    flat = trees.flatten(weights.params, weights.batch_stats)
    flat[vits.TABLE] = vits.table(weights, size)
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
    """Weights of a state; width, depth and patch size are told from shapes.

    Args:
      arrays: names without prefixes such as "module.".
      projection: `head` is the projection of a contrastive method, which is left out.
      heads: of every attention; None for the encoder of ours that is as wide and deep, where
        there are two the one with heads of 64 features.
      pool: what features are, "token" or "mean".
      size: pixels a side, to be compared with the table of positions.
      mean, std: of the images' channels.
      model: arguments of `models.get` where they are known; `heads` to `std` are not asked then.

    Raises:
      Fault: no ViT of ours, or arrays that are missing, unexpected or misshapen.
    """
    body: Arrays = {}
    for name, array in arrays.items():
        if name.startswith(("head.", *BESIDE)):
            continue
        if ".qkv." in name and array.ndim and len(array) % 3 == 0:
            parts = zip("qkv", np.split(array, 3), strict=True)
            body |= {f"{name}[{part}]": third for part, third in parts}
        else:
            body[name] = array
    if any(name.startswith("fc_norm.") for name in arrays):
        message = f"{LAYOUT}: fc_norm normalises after pooling; ours normalise before it"
        raise Fault(
            f"{message}. Take weights made with fc_norm=False, or pre-trained ones", BAD_DATA
        )
    table = vits.take_table(LAYOUT, body, "pos_embed")
    if model is None:
        patches, hidden = (body.get(n, _NONE) for n in (_PATCHES, _HIDDEN))
        model = vits.model(
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
    body |= vits.parameter(LAYOUT, model, "pos_embed", table)
    others = {} if projection else _classifier(trees.strip(arrays, "head."))
    want = vits.shapes(model, len(table))
    return trees.place(LAYOUT, model, want, body, _name, _to_ours, others)


def config(model: Mapping[str, Any]) -> dict[str, Any]:
    """What `export/pytorch.py` builds the network from, beside the model itself; JSON."""
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
    """The name under which timm builds this network, given `timm_args`."""
    trees.encoder(model)
    return f"{TIMM.get(model['name'], model['name'])}_patch16_224"


def timm_args(model: Mapping[str, Any], size: int) -> dict[str, Any]:
    """What `timm.create_model` needs beside the name, for images of `size` pixels a side."""
    module = trees.encoder(model)
    usual = VITS[TIMM.get(model["name"], model["name"])]
    found = {
        "img_size": (size, 224),
        "patch_size": (module.patch_size, 16),
        "embed_dim": (module.width, usual["width"]),
        "depth": (module.depth, usual["depth"]),
        "num_heads": (module.heads, usual["heads"]),
        "mlp_ratio": (module.mlp_ratio, 4),
        "global_pool": (POOLS[module.pool], "token"),
    }
    args = {name: value for name, (value, default) in found.items() if value != default}
    # timm would normalise after the mean; it does so before, as we do, only if told.
    return args | ({"fc_norm": False} if module.pool == "mean" else {})


def torchvision_name(model: Mapping[str, Any]) -> str:
    """Raises Fault: torchvision names the parts of its ViTs in a way of its own."""
    message = f"torchvision has no {model['name']}: its ViTs have other parts. Take --format=timm"
    raise Fault(f"{message}, or --format=torch, which brings the PyTorch definition along", USAGE)


def _name(path: Path) -> str:
    """("params", "blocks_0", "attn", "q", "kernel") -> "blocks.0.attn.qkv.weight[q]"."""
    _, *modules, leaf = path
    if not modules:
        return leaf
    end = {"kernel": "weight", "scale": "weight"}.get(leaf, leaf)
    if modules[-1] in ("q", "k", "v"):
        end, modules = f"{end}[{modules[-1]}]", [*modules[:-1], "qkv"]
    if modules == ["patch_embed"]:
        modules = ["patch_embed", "proj"]
    return ".".join([*modules, end]).replace("blocks_", "blocks.")


def _to_torch(path: Path, array: np.ndarray) -> np.ndarray:
    if path[-1] == "cls_token":
        return array.reshape(1, 1, -1)
    if path == vits.TABLE:
        return array[None]
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T


def _to_ours(path: Path, array: np.ndarray) -> np.ndarray:
    if path[-1] == "cls_token":
        return array.reshape(-1)
    if path == vits.TABLE:
        return array
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


def _classifier(arrays: Arrays) -> dict[str, Tree]:
    if not arrays:
        return {}
    if set(arrays) != {"weight", "bias"} or arrays["weight"].ndim != 2:
        names = trees.listed(f"head.{name}" for name in arrays)
        message = f"{LAYOUT}: head is a classifier of one weight and bias, not {names}"
        raise Fault(message, BAD_DATA)
    return {"classifier": trees.dense(arrays["weight"].T, arrays["bias"])}
