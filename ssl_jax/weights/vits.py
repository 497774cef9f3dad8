"""Infers the arguments of a Vision Transformer from shapes, and handles its position table."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ssl_jax import models
from ssl_jax.errors import BAD_DATA, USAGE, Fault
from ssl_jax.weights import Arrays, Weights, trees
from ssl_jax.weights.trees import Path, Shape

POSITION_PATH: Path = ("params", "pos_embed")
HEAD_WIDTH = 64  # features per attention head in most ViTs
TOLERANCE = 1e-6  # files store position tables as float32


def infer_model(
    layout: str,
    *,
    kernel: Shape,
    depth: int,
    hidden: int,
    table: np.ndarray,
    heads: int | None,
    pool: str,
    size: int | None,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> dict[str, Any]:
    """Returns the arguments of `ssl_jax.models.get`.

    Args:
      layout: name of the layout, for error messages.
      kernel: shape of the patch embedding, [p, p, 3, width].
      depth: number of blocks.
      hidden: width of the MLP's hidden layer.
      table: position table [1 + t, width].
      heads: number of attention heads; None for the usual number.
      pool: "token" or "mean".
      size: side of the images in pixels, if the caller knows it.
      mean, std: per-channel statistics of the images.

    Raises:
      Fault: if no ViT has these shapes, or if images of `size` pixels need another table.
    """
    if len(kernel) != 4 or not all(kernel) or kernel[-1] != table.shape[1]:
        message = f"{layout}: position table {table.shape} and patch embedding {kernel} do not fit"
        raise Fault(message, BAD_DATA)
    patch, _, _, width = kernel
    side = math.isqrt(len(table) - 1)
    if size is not None and (side != size // patch or side * side != len(table) - 1):
        message = f"{layout}: {len(table) - 1} positions do not fit images of {size} pixels in"
        raise Fault(
            f"{message} patches of {patch}. Leave size out or pass size={side * patch}", BAD_DATA
        )
    return {
        "name": _model_name(layout, width, depth, heads),
        "patch_size": patch,
        "mlp_ratio": hidden // width,
        "pool": pool,
        "positions": "sincos" if _is_sincos(table) else "learned",
        "mean": mean,
        "std": std,
    }


def _model_name(layout: str, width: int, depth: int, heads: int | None) -> str:
    matching = {
        name: vit["heads"]
        for name, vit in models.VITS.items()
        if (vit["width"], vit["depth"]) == (width, depth) and heads in (None, vit["heads"])
    }
    if not matching:
        known = "; ".join(f"{name} {vit}" for name, vit in models.VITS.items())
        and_heads = "" if heads is None else f" and {heads} heads"
        message = f"{layout}: no ViT has width {width}, depth {depth}{and_heads}"
        raise Fault(f"{message}. Supported are: {known}", BAD_DATA)
    return min(matching, key=lambda name: abs(matching[name] - width // HEAD_WIDTH))


def _is_sincos(table: np.ndarray) -> bool:
    """Returns True for sine-cosine positions of a square of patches and a zero class token."""
    side = math.isqrt(len(table) - 1)
    if side * side != len(table) - 1 or table.shape[1] % 4 or np.any(table[0]):
        return False
    return bool(np.abs(table[1:] - _sincos(side, table.shape[1])).max() <= TOLERANCE)


def _sincos(side: int, width: int) -> np.ndarray:
    from ssl_jax.models.vit import positions

    return positions(side, side, width)


def position_table(weights: Weights, size: int) -> np.ndarray:
    """Returns the positions for images of `size` pixels a side, float32 [1 + t, width].

    Raises:
      Fault: if the positions were learned at another size, or if `size` is not a multiple of the
        patch size.
    """
    module = trees.encoder(weights.model)
    side, remainder = divmod(size, module.patch_size)
    if remainder:
        message = f"{size} pixels are not a multiple of the patch size {module.patch_size}"
        raise Fault(message, USAGE)
    if module.positions == "sincos":
        zeros = np.zeros((1, module.width))
        return np.concatenate([zeros, _sincos(side, module.width)]).astype(np.float32)
    learned = np.asarray(weights.params["pos_embed"])
    if len(learned) != 1 + side * side:
        message = f"the model learned {len(learned) - 1} positions, but {size} pixels need"
        raise Fault(f"{message} {side * side}. Export at the image size of training", USAGE)
    return learned


def image_size(weights: Weights) -> int | None:
    """Returns the side in pixels for which positions were learned; None if any size works.

    Raises:
      Fault: if the positions are not a square of patches and a class token.
    """
    module = trees.encoder(weights.model)
    if module.positions == "sincos":
        return None
    patches = len(weights.params["pos_embed"]) - 1
    if (side := math.isqrt(max(patches, 0))) ** 2 != patches or not side:
        message = f"{patches} positions after the class token do not form a square of patches"
        raise Fault(f"{message}: this ViT is not supported", BAD_DATA)
    return int(module.patch_size * side)


def pop_position_table(layout: str, arrays: Arrays, name: str) -> np.ndarray:
    """Removes the position table, [1, n, width] or [n, width], and returns it as [n, width].

    Raises:
      Fault: if the table is missing or has another shape.
    """
    table = arrays.pop(name, None)
    if table is None or table.ndim not in (2, 3) or (table.ndim == 3 and len(table) != 1):
        shape = "missing" if table is None else list(table.shape)
        raise Fault(f"{layout}: {name} is {shape}, expected [1, 1 + patches, width]", BAD_DATA)
    return table.reshape(table.shape[-2:])


def position_parameter(
    layout: str, model: Mapping[str, Any], name: str, table: np.ndarray
) -> Arrays:
    """Returns {name: table} if the model learns positions, and {} if it computes them.

    Raises:
      Fault: if the model computes sine-cosine positions and `table` differs from them.
    """
    if model.get("positions", "sincos") == "learned":
        return {name: table}
    if not _is_sincos(table):
        raise Fault(f"{layout}: {name} is not the sine-cosine table that {model} needs", BAD_DATA)
    return {}


def shapes(model: Mapping[str, Any], rows: int, channels: int = 3) -> dict[Path, Shape]:
    """Returns the shapes of a ViT's arrays by path, for a position table of `rows` rows
    and images of `channels` channels.

    Raises:
      Fault: if the model is not a ViT.
    """
    patch = getattr(trees.encoder(model), "patch_size", 0)
    if not patch:
        raise Fault(f"{model['name']} is not a ViT, but the arrays are those of a ViT", BAD_DATA)
    return trees.shapes(model, (patch, patch * max(rows - 1, 1)), channels)
