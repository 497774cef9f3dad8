"""Which Vision Transformer a file holds, told from shapes, and its table of positions."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ssl_jax import models
from ssl_jax.errors import BAD_DATA, USAGE, Fault
from ssl_jax.weights import Arrays, Weights, trees
from ssl_jax.weights.trees import Path, Shape

TABLE: Path = ("params", "pos_embed")
HEAD = 64  # features of an attention head, in most ViTs
NEAR = 1e-6  # tables are written as float32


def model(
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
    """Arguments of `ssl_jax.models.get`.

    Args:
      layout: its name, for people.
      kernel: shape of the patch embedding, [p, p, 3, width].
      depth: blocks.
      hidden: width of the MLP's hidden layer.
      table: positions [1 + t, width].
      heads: None for the usual number.
      size: pixels a side, if the caller knows.

    Raises:
      Fault: no ViT of ours has such shapes, or images of that size other positions.
    """
    if len(kernel) != 4 or not all(kernel) or kernel[-1] != table.shape[1]:
        message = f"{layout}: positions {table.shape} and patch embedding {kernel} do not fit"
        raise Fault(message, BAD_DATA)
    patch, _, _, width = kernel
    side = math.isqrt(len(table) - 1)
    if size is not None and (side != size // patch or side * side != len(table) - 1):
        message = f"{layout}: {len(table) - 1} positions are not those of {size} pixels in patches"
        raise Fault(f"{message} of {patch}; leave the size out or take {side * patch}", BAD_DATA)
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
    fits = {
        name: vit["heads"]
        for name, vit in models.VITS.items()
        if (vit["width"], vit["depth"]) == (width, depth) and heads in (None, vit["heads"])
    }
    if not fits:
        known = "; ".join(f"{name} {vit}" for name, vit in models.VITS.items())
        asked = "" if heads is None else f" and {heads} heads"
        message = f"{layout}: width {width}, depth {depth}{asked}; there are: {known}"
        raise Fault(message, BAD_DATA)
    return min(fits, key=lambda name: abs(fits[name] - width // HEAD))


def _is_sincos(table: np.ndarray) -> bool:
    """Whether these are our positions of a square of patches, none for the class token."""
    side = math.isqrt(len(table) - 1)
    if side * side != len(table) - 1 or table.shape[1] % 4 or np.any(table[0]):
        return False
    return bool(np.abs(table[1:] - _sincos(side, table.shape[1])).max() <= NEAR)


def _sincos(side: int, width: int) -> np.ndarray:
    from ssl_jax.models.vit import positions

    return positions(side, side, width)


def table(weights: Weights, size: int) -> np.ndarray:
    """Positions [1 + t, width] float32 for images of `size` pixels a side.

    Raises:
      Fault: they were learned at another size, or patches do not divide this one.
    """
    module = trees.encoder(weights.model)
    side, rest = divmod(size, module.patch_size)
    if rest:
        message = f"{size} pixels do not divide into patches of {module.patch_size}"
        raise Fault(message, USAGE)
    if module.positions == "sincos":
        zeros = np.zeros((1, module.width))
        return np.concatenate([zeros, _sincos(side, module.width)]).astype(np.float32)
    learned = np.asarray(weights.params["pos_embed"])
    if len(learned) != 1 + side * side:
        message = f"{len(learned) - 1} positions were learned, {size} pixels are {side * side}"
        raise Fault(f"{message}: export at the size of training", USAGE)
    return learned


def image_size(weights: Weights) -> int | None:
    """Pixels a side for which positions were learned; None where any size will do.

    Raises:
      Fault: they are no square of patches beside a class token.
    """
    module = trees.encoder(weights.model)
    if module.positions == "sincos":
        return None
    patches = len(weights.params["pos_embed"]) - 1
    if (side := math.isqrt(max(patches, 0))) ** 2 != patches or not side:
        message = f"{patches} positions beside the class token's are no square of patches"
        raise Fault(f"{message}: no ViT of ours", BAD_DATA)
    return int(module.patch_size * side)


def take_table(layout: str, arrays: Arrays, name: str) -> np.ndarray:
    """Removes the table of positions, [1, n, width] or [n, width], and returns it as [n, width].

    Raises:
      Fault: there is none, or it is of another shape.
    """
    found = arrays.pop(name, None)
    if found is None or found.ndim not in (2, 3) or (found.ndim == 3 and len(found) != 1):
        shape = "missing" if found is None else list(found.shape)
        raise Fault(f"{layout}: {name} is {shape}, wanted [1, 1 + patches, width]", BAD_DATA)
    return found.reshape(found.shape[-2:])


def parameter(layout: str, model: Mapping[str, Any], name: str, table: np.ndarray) -> Arrays:
    """The table by its name where the model learns positions; nothing where it computes them.

    Raises:
      Fault: the model computes others.
    """
    if model.get("positions", "sincos") == "learned":
        return {name: table}
    if not _is_sincos(table):
        raise Fault(f"{layout}: {name} is no sine-cosine table, as {model} wants", BAD_DATA)
    return {}


def shapes(model: Mapping[str, Any], rows: int) -> dict[Path, Shape]:
    """Shapes of a ViT's arrays by path, its table of positions of so many rows."""
    patch = getattr(trees.encoder(model), "patch_size", 0)
    if not patch:
        raise Fault(f"{model['name']} is no ViT, as the arrays are", BAD_DATA)
    return trees.shapes(model, (patch, patch * max(rows - 1, 1)))
