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
    """Rows on one side of the pairs. All arrays are sharded alike on their first axis."""

    x: jax.Array
    """[n, d] float32 or float64. The logit of two rows is their inner product. Each side is
    therefore scaled by the square root of the inverse temperature.
    """

    group: jax.Array | None = None
    """int32 [n], at least 0. Pairs within one group are left out; None leaves no pair out."""

    aux: Tree = ()
    """Arrays [n] for the body, without gradient: rank thresholds, labels."""


class Work(NamedTuple):
    """The terms to sum, and how to compute them."""

    body: Body
    """Function of one tile of logits, described in `pairs.pair_sums`."""

    axes: tuple[Hashable, ...]
    """Mesh axes over which rows are sharded; () on one device."""

    dtype: Any
    """Dtype of the factors of every product."""


class Tiles(NamedTuple):
    """Rows cut into tiles: every array [n, ...] becomes [tiles, rows per tile, ...]."""

    rows: Rows
    valid: np.ndarray | None
    """bool [tiles, rows per tile], False for padding in the last tile; None without padding."""


class TilePairs(NamedTuple):
    """Pairs of a row tile and a column tile to visit, in this order. Arrays [p]."""

    row: jax.Array
    """Index of the row tile."""
    column: jax.Array
    """Index of the column tile."""
    mirror: jax.Array | None = None
    """bool, whether a tile also counts for the sums of its columns. None if these have no sums."""


def sum_pairs(
    work: Work, a: Tiles, b: Tiles, shared: Tree, tile_pairs: TilePairs
) -> tuple[Tree, Tree]:
    """Sums the terms and monitors of the body over the given pairs of tiles.

    Returns:
      (sums for the rows `a`, sums for the columns `b` or ()). Arrays [tiles, rows per tile].
    """

    def tile(pair):
        row, column = _pick(a, pair.row), _pick(b, pair.column)
        logits, keep = _logits(row.rows, column.rows), _keep(row, column)
        per_row, per_column = _per_row(row.rows.aux), _per_column(column.rows.aux)
        row_sums = _totals(work.body(logits, per_row, per_column, shared), keep, 1)
        if pair.mirror is None:
            return row_sums, ()
        column_sums = _totals(work.body(logits, per_column, per_row, shared), keep, 0)
        return row_sums, jax.tree.map(lambda t: jnp.where(pair.mirror, t, 0), column_sums)

    def visit(sums, pair):
        row_sums, column_sums = tile(pair)
        sums = _add(sums[0], pair.row, row_sums), _add(sums[1], pair.column, column_sums)
        return sums, None

    shapes = jax.eval_shape(tile, jax.tree.map(lambda p: p[0], tile_pairs))
    start = (zeros(shapes[0], work, len(a.rows.x)), zeros(shapes[1], work, len(b.rows.x)))
    return lax.scan(visit, start, tile_pairs)[0]


def gradient(work: Work, a: Tiles, b: Tiles, shared: Tree, tile_pairs: TilePairs) -> jax.Array:
    """Gradient of the rows `a` over the given pairs of tiles, [tiles, rows per tile, d].

    The field `aux` of each side is a pair: the aux of the body, and the cotangents [n] of that
    side's sums (None if the side has no sums).
    """

    def visit(total, pair):
        row, column = _pick(a, pair.row), _pick(b, pair.column)
        (own, g), (other, h) = row.rows.aux, column.rows.aux
        keep = _keep(row, column)

        def sums(logits):
            row_sums = column_sums = None
            if g is not None:
                row_sums = _totals(
                    work.body(logits, _per_row(own), _per_column(other), shared)[0], keep, 1
                )
            if h is not None:
                column_sums = _totals(
                    work.body(logits, _per_column(other), _per_row(own), shared)[0], keep, 0
                )
            return row_sums, column_sums

        _, pullback = jax.vjp(sums, _logits(row.rows, column.rows))
        (weights,) = pullback((g, h))
        update = _dot(weights.astype(work.dtype), column.rows.x, (1, 0))
        return _add(total, pair.row, update), None

    tile = jax.ShapeDtypeStruct(a.rows.x.shape[1:], accumulation_dtype(a.rows.x.dtype))
    return lax.scan(visit, zeros(tile, work, len(a.rows.x)), tile_pairs)[0]


def cut(rows: Rows) -> Tiles:
    """Cuts rows into tiles of equal size, with at most TILE rows each."""
    n = len(rows.x)
    count = -(-n // TILE)
    size = -(-n // count)
    padding = count * size - n

    def tiles(x):
        x = jnp.pad(x, [(0, padding)] + [(0, 0)] * (x.ndim - 1)) if padding else x
        return x.reshape(count, size, *x.shape[1:])

    valid = (np.arange(count * size) < n).reshape(count, size) if padding else None
    return Tiles(jax.tree.map(tiles, rows), valid)


def join(tree: Tree, n: int) -> Tree:
    """Joins the tiles: arrays [tiles, rows per tile, ...] -> [n, ...]."""
    return jax.tree.map(lambda t: t.reshape(-1, *t.shape[2:])[:n], tree)


def grid(a: Tiles, b: Tiles, mirror: bool | jax.Array | None = None) -> TilePairs:
    """Pairs every tile of `a` with every tile of `b`."""
    row, column = np.indices((len(a.rows.x), len(b.rows.x)), np.int32).reshape(2, -1)
    if mirror is not None:
        mirror = jnp.broadcast_to(mirror, row.shape)
    return TilePairs(jnp.asarray(row), jnp.asarray(column), mirror)


def triangle(a: Tiles) -> TilePairs:
    """Pairs of tiles on and above the diagonal. A diagonal tile is its own mirror image."""
    row, column = map(jnp.int32, np.triu_indices(len(a.rows.x)))
    return TilePairs(row, column, row != column)


def _pick(tiles: Tiles, index: jax.Array) -> Tiles:
    """Selects one tile of every array."""
    return jax.tree.map(
        lambda t: lax.dynamic_index_in_dim(jnp.asarray(t), index, keepdims=False), tiles
    )


def _add(sums: Tree, index: jax.Array, update: Tree) -> Tree:
    def add(total, value):
        old = lax.dynamic_index_in_dim(total, index, keepdims=False)
        return lax.dynamic_update_index_in_dim(total, old + value, index, 0)

    return jax.tree.map(add, sums, update)


def _per_row(aux: Tree) -> Tree:
    """Broadcasts arrays [r] of a row tile against logits [r, c]."""
    return jax.tree.map(lambda a: a[:, None], aux)


def _per_column(aux: Tree) -> Tree:
    """Broadcasts arrays [c] of a column tile against logits [r, c]."""
    return jax.tree.map(lambda a: a[None, :], aux)


def _keep(row: Tiles, column: Tiles) -> jax.Array | None:
    """Mask of the pairs of a tile that count, bool [r, c]; None if all count."""
    keep = None
    if row.rows.group is not None and column.rows.group is not None:
        keep = row.rows.group[:, None] != column.rows.group[None, :]
    for valid in (_per_row(row.valid), _per_column(column.valid)):
        if valid is not None:
            keep = valid if keep is None else keep & valid
    return keep


def _totals(values: Tree, keep: jax.Array | None, axis: int) -> Tree:
    """Sums over one axis, leaving out masked pairs.

    Masked pairs are never summed and then subtracted: subtracting a large masked pair would lose
    the digits of small ones.
    """

    def total(v):
        return (v if keep is None else jnp.where(keep, v, 0)).sum(axis)

    return jax.tree.map(total, values)


def _logits(row: Rows, column: Rows) -> jax.Array:
    return _dot(row.x, column.x, (1, 1))


def _dot(a: jax.Array, b: jax.Array, contract: tuple[int, int]) -> jax.Array:
    """Matrix product whose terms are summed in float32 or wider."""
    # By default, accelerators would round float32 products to 8 or 11 bits.
    exact = lax.Precision.HIGHEST if a.dtype.itemsize >= 4 else None
    dimensions = (((contract[0],), (contract[1],)), ((), ()))
    return lax.dot_general(
        a,
        b,
        dimensions,
        precision=exact,
        preferred_element_type=accumulation_dtype(a.dtype),
    )


def accumulation_dtype(dtype: Any) -> Any:
    """The dtype in which products of `dtype` are summed: float32 or wider."""
    return jnp.promote_types(dtype, jnp.float32)


def zeros(shapes: Tree, work: Work, *leading: int) -> Tree:
    """Zeros to accumulate into, marked as varying over devices."""

    def zero(shape):
        array = jnp.zeros((*leading, *shape.shape), shape.dtype)
        return lax.pcast(array, work.axes, to="varying") if work.axes else array

    return jax.tree.map(zero, shapes)
