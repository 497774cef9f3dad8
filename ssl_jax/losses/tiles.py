"""Sums over pairs of rows on one device, tile by tile: the inner loop of `losses.pairs`."""

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Tree = Any
Body = Callable[[jax.Array, Tree, Tree, Tree], tuple[Tree, Tree]]

TILE = 1024


class Rows(NamedTuple):
    """One side of the pairs: n rows, sharded alike on their first axis."""

    x: jax.Array
    """[n, d] float32 or float64. The logit of two rows is their inner product: scale by the root of
    the inverse temperature."""

    group: jax.Array | None = None
    """int32 [n], at least 0. Pairs of equal group are left out. None leaves none out."""

    aux: Tree = ()
    """Arrays [n] for the body, without gradient: thresholds of rank, labels."""


class Work(NamedTuple):
    """What is summed, and how."""

    body: Body
    """See `pairs.pair_sums`."""

    axes: tuple[Hashable, ...]
    """Mesh axes that rows are divided over; () on one device."""

    dtype: Any
    """Of the factors of every product."""


class _Tiles(NamedTuple):
    """Rows cut into tiles: every array [n, ...] has become [tiles, rows of a tile, ...]."""

    rows: Rows
    valid: np.ndarray | None
    """bool, False where rows were added to fill the last tile; None if none were."""


def sum_pairs(
    work: Work, rows: Rows, columns: Rows | None, shared: Tree, both: bool
) -> tuple[Tree, Tree]:
    """(Sums for the rows, sums for the columns or ()); with columns None, the rows' sums over
    themselves, by the tiles on and above the diagonal, and ()."""
    a = _cut(rows)
    b = a if columns is None else _cut(columns)
    grid = np.triu_indices(len(a.rows.x)) if columns is None else _grid(a, b)

    def tile(i, j):
        row, column = _pick(a, i), _pick(b, j)
        logits, keep = _logits(row.rows, column.rows), _keep(row, column)
        down, across = _down(row.rows.aux), _across(column.rows.aux)
        mine = _totals(work.body(logits, down, across, shared), keep, 1)
        theirs = _totals(work.body(logits, across, down, shared), keep, 0) if both else ()
        if columns is None:
            # A tile on the diagonal is its own mirror image.
            theirs = jax.tree.map(lambda t: jnp.where(i == j, 0, t), theirs)
        return mine, theirs

    def visit(sums, place):
        i, j = place
        mine, theirs = tile(i, j)
        return (_add(sums[0], i, mine), _add(sums[1], j, theirs)), None

    shapes = jax.eval_shape(tile, 0, 0)
    start = tuple(
        zeros(shape, work, len(t.rows.x)) for shape, t in zip(shapes, (a, b), strict=True)
    )
    (mine, theirs), _ = lax.scan(visit, start, _indices(grid))
    if columns is None:
        mine, theirs = jax.tree.map(jnp.add, mine, theirs), ()
    return _uncut(mine, rows), _uncut(theirs, rows if columns is None else columns)


def pull(work: Work, rows: Rows, g: Tree, columns: Rows, h: Tree, shared: Tree) -> jax.Array:
    """Gradient [n, d] of the rows, from the cotangents [n] of the rows' sums, [m] of the columns'.

    None: there are no such sums.
    """
    a = _cut(rows._replace(aux=(rows.aux, g)))
    b = _cut(columns._replace(aux=(columns.aux, h)))

    def visit(gradient, place):
        i, j = place
        row, column = _pick(a, i), _pick(b, j)
        (own, g), (other, h) = row.rows.aux, column.rows.aux
        keep = _keep(row, column)

        def sums(logits):
            mine = theirs = None
            if g is not None:
                mine = _totals(work.body(logits, _down(own), _across(other), shared)[0], keep, 1)
            if h is not None:
                theirs = _totals(work.body(logits, _across(other), _down(own), shared)[0], keep, 0)
            return mine, theirs

        _, pullback = jax.vjp(sums, _logits(row.rows, column.rows))
        (weights,) = pullback((g, h))
        return _add(gradient, i, _dot(weights.astype(work.dtype), column.rows.x, (1, 0))), None

    tile = jax.ShapeDtypeStruct(a.rows.x.shape[1:], wide(rows.x.dtype))
    gradient, _ = lax.scan(visit, zeros(tile, work, len(a.rows.x)), _indices(_grid(a, b)))
    return _uncut(gradient, rows)


def _cut(rows: Rows) -> _Tiles:
    n = len(rows.x)
    count = -(-n // TILE)
    size = -(-n // count)
    added = count * size - n

    def cut(x):
        x = jnp.pad(x, [(0, added)] + [(0, 0)] * (x.ndim - 1)) if added else x
        return x.reshape(count, size, *x.shape[1:])

    valid = (np.arange(count * size) < n).reshape(count, size) if added else None
    return _Tiles(jax.tree.map(cut, rows), valid)


def _uncut(tree: Tree, rows: Rows) -> Tree:
    return jax.tree.map(lambda t: t.reshape(-1, *t.shape[2:])[: len(rows.x)], tree)


def _grid(a: _Tiles, b: _Tiles) -> np.ndarray:
    return np.indices((len(a.rows.x), len(b.rows.x))).reshape(2, -1)


def _indices(grid: Any) -> tuple[jax.Array, ...]:
    return tuple(jnp.asarray(i, jnp.int32) for i in grid)


def _pick(tiles: _Tiles, i: jax.Array) -> _Tiles:
    return jax.tree.map(
        lambda t: lax.dynamic_index_in_dim(jnp.asarray(t), i, keepdims=False), tiles
    )


def _add(sums: Tree, i: jax.Array, more: Tree) -> Tree:
    def add(s, m):
        old = lax.dynamic_index_in_dim(s, i, keepdims=False)
        return lax.dynamic_update_index_in_dim(s, old + m, i, 0)

    return jax.tree.map(add, sums, more)


def _down(aux: Tree) -> Tree:
    return jax.tree.map(lambda a: a[:, None], aux)


def _across(aux: Tree) -> Tree:
    return jax.tree.map(lambda a: a[None, :], aux)


def _keep(row: _Tiles, column: _Tiles) -> jax.Array | None:
    """Which pairs of a tile count, bool [r, c]; None for all."""
    keep = None
    if row.rows.group is not None and column.rows.group is not None:
        keep = row.rows.group[:, None] != column.rows.group[None, :]
    for valid in (_down(row.valid), _across(column.valid)):
        if valid is not None:
            keep = valid if keep is None else keep & valid
    return keep


def _totals(values: Tree, keep: jax.Array | None, axis: int) -> Tree:
    """Masked, never subtracted: a large pair would take the small ones' digits with it."""

    def total(v):
        return (v if keep is None else jnp.where(keep, v, 0)).sum(axis)

    return jax.tree.map(total, values)


def _logits(row: Rows, column: Rows) -> jax.Array:
    return _dot(row.x, column.x, (1, 1))


def _dot(a: jax.Array, b: jax.Array, contract: tuple[int, int]) -> jax.Array:
    """Summed in float32 at least."""
    # Accelerators would round float32 to 8 or 11 bits by default.
    exact = lax.Precision.HIGHEST if a.dtype.itemsize >= 4 else None
    dimensions = (((contract[0],), (contract[1],)), ((), ()))
    return lax.dot_general(
        a,
        b,
        dimensions,
        precision=exact,
        preferred_element_type=wide(a.dtype),
    )


def wide(dtype: Any) -> Any:
    """The type in which products of `dtype` are summed."""
    return jnp.promote_types(dtype, jnp.float32)


def zeros(shapes: Tree, work: Work, *leading: int) -> Tree:
    """Zeros to sum into, marked as different on every device."""

    def zero(s):
        z = jnp.zeros((*leading, *s.shape), s.dtype)
        return lax.pcast(z, work.axes, to="varying") if work.axes else z

    return jax.tree.map(zero, shapes)
