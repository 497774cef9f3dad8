"""Which parameters are decayed, adapted, frozen, or have an optimizer of their own.

Parameters are named by their path in the tree, "encoder/conv1/kernel".
"""

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax

Tree = Any
# Labels of parameters that are in no group; groups bear the names of modules, which have letters.
MAIN, FROZEN = "_main", "_frozen"


def is_weight(params: Tree) -> Tree:
    """True for kernels; False for biases and for scales of normalisation layers (one axis)."""
    return jax.tree.map(lambda p: p.ndim > 1, params)


def labels(params: Tree, groups: Iterable[str] = (), frozen: Sequence[str] = ()) -> Tree:
    """What becomes of each parameter: FROZEN, the name of its group, or MAIN.

    Args:
      params: dictionary of trees.
      groups: keys of `params`.
      frozen: paths of parameters, or of the modules around them; they win over groups.

    Raises:
      ValueError: for a group or a path of `frozen` that names no parameter.
    """
    groups = set(groups)
    if missing := sorted(groups - params.keys()):
        top = ", ".join(sorted(params))
        raise ValueError(f"groups: no parameters under {missing[0]!r}; the top level has: {top}")
    paths = [_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    for prefix in frozen:
        if not any(_within(path, prefix) for path in paths):
            raise ValueError(f"frozen: no parameter under {prefix!r}; {_near(prefix, paths)}")

    def label(path: tuple, _: Any) -> str:
        name = _name(path)
        if any(_within(name, prefix) for prefix in frozen):
            return FROZEN
        top = name.partition("/")[0]
        return top if top in groups else MAIN

    return jax.tree_util.tree_map_with_path(label, params)


def _name(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _within(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(f"{prefix}/")


def _near(prefix: str, paths: Sequence[str]) -> str:
    parts = [path.split("/") for path in paths]
    modules = {"/".join(p[:depth]) for p in parts for depth in range(1, len(p) + 1)}
    near = difflib.get_close_matches(prefix, sorted(modules), n=3)
    if near:
        return f"near it are: {', '.join(near)}"
    return f"the top level has: {', '.join(sorted({p[0] for p in parts}))}"


def table(
    params: Tree,
    main: Mapping[str, Any],
    groups: Mapping[str, Mapping[str, Any]] | None = None,
    frozen: Sequence[str] = (),
) -> str:
    """What the optimizer does to each parameter: one line each, totals last.

    The last column stands only where parameters differ in it: their optimizer, or "frozen".

    Args:
      params: arrays or ShapeDtypeStructs.
      main: "name", "weight_decay" and, if any, "weight_decay_end" of `optimizers.make`.
      groups, frozen: of `optimizers.make`.
    """
    groups = groups or {}
    header = ("parameter", "shape", "size", "decayed", "adapted", "optimizer")
    rows: list[tuple[str, ...]] = [header]
    sizes = []
    fates = jax.tree.leaves(labels(params, groups, frozen))
    for (path, leaf), label in zip(jax.tree_util.tree_leaves_with_path(params), fates, strict=True):
        own = {**main, **groups.get(label, {})}
        size, fixed = math.prod(leaf.shape), label == FROZEN
        trained_weight = leaf.ndim > 1 and not fixed
        decayed = trained_weight and (own["weight_decay"] or own.get("weight_decay_end") or 0) > 0
        adapted = trained_weight and own["name"] == "lars"
        sizes.append((size, decayed * size, adapted * size, fixed * size))
        shape = "x".join(map(str, leaf.shape)) or "scalar"
        optimizer = "frozen" if fixed else own["name"]
        rows.append((_name(path), shape, f"{size:,}", _mark(decayed), _mark(adapted), optimizer))
    *totals, at_rest = (f"{sum(column):,}" for column in zip(*sizes, strict=True))
    rows.append((f"total ({len(sizes)})", "", *totals, f"{at_rest} frozen" if frozen else ""))
    return _aligned(rows if groups or frozen else [row[:-1] for row in rows])


def _mark(flag: bool) -> str:
    return "yes" if flag else "-"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns two spaces apart: the first two flush left, the others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]

    def line(row: Sequence[str]) -> str:
        left = [cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True)]
        right = [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
        return "  ".join(left + right)

    return "\n".join(map(line, rows))
