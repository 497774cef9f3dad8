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


class Tiles(NamedTuple):
    """Rows cut into tiles: every array [n, ...] has become [tiles, rows of a tile, ...]."""

    rows: Rows
    valid: np.ndarray | None
    """bool, False where rows were added to fill the last tile; None if none were."""


class Places(NamedTuple):
    """Which tiles of rows meet which of columns, arrays [p], in this order."""

    row: jax.Array
    column: jax.Array
    mirror: jax.Array | None = None
    """bool: whether the columns take the tile into their sums too. None: they have no sums."""


def sum_pairs(work: Work, a: Tiles, b: Tiles, shared: Tree, places: Places) -> tuple[Tree, Tree]:
    """(Sums for the rows `a`, sums for the columns `b` or ()), arrays [tiles, rows of a tile]."""

    def tile(place):
        row, column = _pick(a, place.row), _pick(b, place.column)
        logits, keep = _logits(row.rows, column.rows), _keep(row, column)
        down, across = _down(row.rows.aux), _across(column.rows.aux)
        mine = _totals(work.body(logits, down, across, shared), keep, 1)
        if place.mirror is None:
            return mine, ()
        theirs = _totals(work.body(logits, across, down, shared), keep, 0)
        return mine, jax.tree.map(lambda t: jnp.where(place.mirror, t, 0), theirs)

    def visit(sums, place):
        mine, theirs = tile(place)
        return (_add(sums[0], place.row, mine), _add(sums[1], place.column, theirs)), None

    shapes = jax.eval_shape(tile, jax.tree.map(lambda p: p[0], places))
    start = (zeros(shapes[0], work, len(a.rows.x)), zeros(shapes[1], work, len(b.rows.x)))
    return lax.scan(visit, start, places)[0]


def pull(work: Work, a: Tiles, b: Tiles, shared: Tree, places: Places) -> jax.Array:
    """Gradient [tiles, rows of a tile, d] of the rows `a` from the tiles at `places`.

    `aux` of either side is a pair: the body's, and the cotangents [n] of that side's sums, None
    if there are no such sums.
    """

    def visit(gradient, place):
        row, column = _pick(a, place.row), _pick(b, place.column)
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
        more = _dot(weights.astype(work.dtype), column.rows.x, (1, 0))
        return _add(gradient, place.row, more), None

    tile = jax.ShapeDtypeStruct(a.rows.x.shape[1:], wide(a.rows.x.dtype))
    return lax.scan(visit, zeros(tile, work, len(a.rows.x)), places)[0]


def cut(rows: Rows) -> Tiles:
    """Tiles of equal size, at most TILE rows each."""
    n = len(rows.x)
    count = -(-n // TILE)
    size = -(-n // count)
    added = count * size - n

    def tiles(x):
        x = jnp.pad(x, [(0, added)] + [(0, 0)] * (x.ndim - 1)) if added else x
        return x.reshape(count, size, *x.shape[1:])

    valid = (np.arange(count * size) < n).reshape(count, size) if added else None
    return Tiles(jax.tree.map(tiles, rows), valid)


def uncut(tree: Tree, n: int) -> Tree:
    """Arrays [tiles, rows of a tile, ...] -> [n, ...]."""
    return jax.tree.map(lambda t: t.reshape(-1, *t.shape[2:])[:n], tree)


def grid(a: Tiles, b: Tiles, mirror: bool | jax.Array | None = None) -> Places:
    """Every tile of `a` with every one of `b`."""
    row, column = np.indices((len(a.rows.x), len(b.rows.x)), np.int32).reshape(2, -1)
    if mirror is not None:
        mirror = jnp.broadcast_to(mirror, row.shape)
    return Places(jnp.asarray(row), jnp.asarray(column), mirror)


def triangle(a: Tiles) -> Places:
    """The tiles on and above the diagonal; one on the diagonal is its own mirror image."""
    row, column = map(jnp.int32, np.triu_indices(len(a.rows.x)))
    return Places(row, column, row != column)


def _pick(tiles: Tiles, i: jax.Array) -> Tiles:
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


def _keep(row: Tiles, column: Tiles) -> jax.Array | None:
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
