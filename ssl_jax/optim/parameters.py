"""Selects which parameters are decayed, adapted by LARS, frozen, or trained by a group's optimizer.

A parameter is named by its path in the tree, such as "encoder/conv1/kernel".
"""

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax

Tree = Any
# Labels of parameters outside groups. Module names start with a letter, so no group collides.
MAIN, FROZEN = "_main", "_frozen"


def is_weight(params: Tree) -> Tree:
    """Returns the default mask of decayed and LARS-adapted parameters, a tree of bools.

    True for parameters with more than one axis (kernels). False for biases and for the scales of
    normalisation layers, which have one axis.
    """
    return jax.tree.map(lambda p: p.ndim > 1, params)


def is_any(params: Tree) -> Tree:
    """Returns the mask of all parameters: a tree of True."""
    return jax.tree.map(lambda _: True, params)


def labels(
    params: Tree,
    groups: Iterable[str] = (),
    frozen: Sequence[str] = (),
    turns: Iterable[str] = (),
) -> Tree:
    """Labels each parameter with FROZEN, the key or path of its own optimizer, or MAIN.

    Args:
      params: dictionary of trees of arrays.
      groups: keys of `params` with an optimizer of their own.
      frozen: paths of parameters or of modules. A frozen path inside a group stays frozen.
      turns: paths with an optimizer of their own, also inside of a group.

    Returns:
      Tree of str, with the structure of `params`.

    Raises:
      ValueError: if a group, a turn or a frozen path matches no parameter.
    """
    own = set(groups)
    if missing := sorted(own - params.keys()):
        top = ", ".join(sorted(params))
        raise ValueError(f"groups: no parameters under {missing[0]!r}; the top level has: {top}")
    paths = [_path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    for kind, prefixes in (("frozen", frozen), ("turns", turns)):
        for prefix in prefixes:
            if not any(_is_under(path, prefix) for path in paths):
                message = f"{kind}: no parameter under {prefix!r}; {_suggest(prefix, paths)}"
                raise ValueError(message)

    def label(path: tuple, _: Any) -> str:
        name = _path_name(path)
        if any(_is_under(name, prefix) for prefix in frozen):
            return FROZEN
        top = name.partition("/")[0]
        in_turn = (path for path in turns if _is_under(name, path))
        return next(in_turn, top if top in own else MAIN)

    return jax.tree_util.tree_map_with_path(label, params)


def _path_name(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _is_under(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(f"{prefix}/")


def _suggest(prefix: str, paths: Sequence[str]) -> str:
    parts = [path.split("/") for path in paths]
    modules = {"/".join(p[:depth]) for p in parts for depth in range(1, len(p) + 1)}
    similar = difflib.get_close_matches(prefix, sorted(modules), n=3)
    if similar:
        return f"similar paths: {', '.join(similar)}"
    return f"the top level has: {', '.join(sorted({p[0] for p in parts}))}"


def table(
    params: Tree,
    main: Mapping[str, Any],
    groups: Mapping[str, Mapping[str, Any]] | None = None,
    frozen: Sequence[str] = (),
) -> str:
    """Formats a table of how the optimizer treats each parameter: one line each, totals last.

    The last column names the optimizer of each parameter, or "frozen". It appears only with
    groups or frozen parameters.

    Args:
      params: tree of arrays or ShapeDtypeStructs.
      main: settings of the main optimizer: "name", "weight_decay" and, optionally,
        "weight_decay_end", "decay_all" and "adapt_all" of `optimizers.make`.
      groups, frozen: arguments of `optimizers.make`.
    """
    groups = groups or {}
    header = ("parameter", "shape", "size", "decayed", "adapted", "optimizer")
    rows: list[tuple[str, ...]] = [header]
    sizes = []
    leaves = jax.tree_util.tree_leaves_with_path(params)
    leaf_labels = jax.tree.leaves(labels(params, groups, frozen))
    for (path, leaf), label in zip(leaves, leaf_labels, strict=True):
        settings = {**main, **groups.get(label, {})}
        size, is_frozen = math.prod(leaf.shape), label == FROZEN
        decay = settings["weight_decay"] or settings.get("weight_decay_end") or 0
        decayed = not is_frozen and decay > 0
        decayed &= leaf.ndim > 1 or settings.get("decay_all", False)
        adapted = not is_frozen and settings["name"] == "lars"
        adapted &= leaf.ndim > 1 or settings.get("adapt_all", False)
        sizes.append((size, decayed * size, adapted * size, is_frozen * size))
        shape = "x".join(map(str, leaf.shape)) or "scalar"
        optimizer = "frozen" if is_frozen else settings["name"]
        cells = (_path_name(path), shape, f"{size:,}", _mark(decayed), _mark(adapted), optimizer)
        rows.append(cells)
    *totals, frozen_total = (f"{sum(column):,}" for column in zip(*sizes, strict=True))
    last = f"{frozen_total} frozen" if frozen else ""
    rows.append((f"total ({len(sizes)})", "", *totals, last))
    return _align(rows if groups or frozen else [row[:-1] for row in rows])


def _mark(flag: bool) -> str:
    return "yes" if flag else "-"


def _align(rows: Sequence[Sequence[str]]) -> str:
    """Joins columns two spaces apart: the first two aligned left, the others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]

    def line(row: Sequence[str]) -> str:
        left = [cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True)]
        right = [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
        return "  ".join(left + right)

    return "\n".join(map(line, rows))
