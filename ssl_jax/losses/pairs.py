"""Sums a function of the logit over all pairs of rows, without holding all pairs in memory.

This is the engine of every softmax-contrastive loss. A loss provides a body: a function from one
tile of logits to the terms that are summed for each row. Everything that a loss computes from
these n sums is plain autodiff. Logits are computed tile by tile, and again for the gradient, so
memory is O(n d).

The gradient is cheap. With a term f, cotangents g of the sums, and symmetric logits,

    d/dx_i = sum_j (g_i + g_j) f'(x_i . x_j) x_j

so the gradient of a row needs only the other rows and their cotangents, n numbers. No gradient of
an embedding crosses devices. Inf-CL (arXiv 2410.17243), in contrast, sends gradients around the
ring.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import PartitionSpec

from ssl_jax.losses import tiles
from ssl_jax.losses.tiles import Body, Rows, TilePairs, Tiles, Work, accumulation_dtype, zeros

Tree = Any

# Up to this size, one gather is faster than the hops of a ring. Beyond it, the result costs memory.
GATHER_BYTES = 64 * 2**20
TRANSPORTS = ("gather", "ring")


class _Plan(NamedTuple):
    work: Work
    devices: int
    transport: str
    column_sums: bool  # also sum for each column


def pair_sums(
    body: Body,
    rows: Rows,
    columns: Rows | None = None,
    *,
    shared: Tree = (),
    column_sums: bool = False,
    transport: str | None = None,
    dtype: Any = None,
) -> Tree:
    """Sums the terms of the body over all pairs, for each row.

    Under `jax.set_mesh`, rows are sharded over all devices of the mesh, and so are the results.

    Args:
      body: (logits [r, c], own, other, shared) -> (terms, monitors). Both results are trees of
        arrays that broadcast to [r, c], computed elementwise from the logits. `own` holds the `aux`
        of the rows that receive the sums, `other` that of the rows that are summed over; both
        broadcast to [r, c]. Terms are differentiable in the logits; monitors are not.
      rows: the rows that receive the sums.
      columns: the rows to sum over. None sums over `rows`, which must then have groups.
      shared: scalars for the body, without gradient.
      column_sums: also sum for each column, over the rows.
      transport: how columns reach a device: "gather" (all at once) or "ring" (one block at a time).
        None chooses by size.
      dtype: dtype in which rows are multiplied and sent between devices; bfloat16 is fast on
        accelerators. Products are summed in the dtype of `rows.x`, which is float32 for bfloat16.
        None uses the dtype of `rows.x` here, too.

    Returns:
      (terms, monitors), trees of arrays [n]. With `column_sums`, a pair of these: for rows and for
      columns.

    Raises:
      ValueError: if the rows cannot be divided equally among the devices, the transport is unknown,
        or products of `dtype` are not summed in the dtype of the rows.
    """
    mesh = jax.sharding.get_abstract_mesh()
    devices = 1 if mesh.empty else mesh.size
    for side in (rows, columns):
        if side is not None and len(side.x) % devices:
            raise ValueError(
                f"{len(side.x)} rows cannot be divided equally among {devices} devices"
            )
    if transport not in (None, *TRANSPORTS):
        raise ValueError(f"unknown transport {transport!r}; choose one of: {', '.join(TRANSPORTS)}")
    dtype = rows.x.dtype if dtype is None else dtype
    if accumulation_dtype(dtype) != rows.x.dtype:
        raise ValueError(
            f"products of {jnp.dtype(dtype)} are summed in {jnp.dtype(accumulation_dtype(dtype))}, "
            f"but the rows are {rows.x.dtype}"
        )
    if transport is None:
        size = (columns or rows).x.size * jnp.dtype(dtype).itemsize
        transport = "gather" if size <= GATHER_BYTES else "ring"
    sharded = devices > 1
    axes = mesh.axis_names if sharded else ()
    work = Work(body, axes, jnp.dtype(dtype))
    plan = _Plan(work, devices, transport if sharded else "gather", column_sums)

    def local(rows: Rows, columns: Rows | None, shared: Tree) -> Tree:
        rest = (rows[1:], columns and columns[1:], shared)
        return _sums(plan, rows.x, columns and columns.x, rest)

    if sharded:
        by_rows = PartitionSpec(plan.work.axes)
        local = jax.shard_map(
            local, in_specs=(by_rows, by_rows, PartitionSpec()), out_specs=by_rows
        )
    return local(rows, columns, shared)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _sums(plan: _Plan, x: jax.Array, y: jax.Array | None, rest: Tree) -> Tree:
    return _forward(plan, x, y, rest)[0]


def _forward(plan: _Plan, x: jax.Array, y: jax.Array | None, rest: Tree):
    rows_rest, columns_rest, shared = rest
    rows = Rows(x.astype(plan.work.dtype), *rows_rest)
    if y is None:
        return _sums_within(plan, rows, shared), (rows, None, shared)
    columns = Rows(y.astype(plan.work.dtype), *columns_rest)
    sums = _sums_between(plan, rows, columns, shared)
    return (sums if plan.column_sums else sums[0]), (rows, columns, shared)


def _backward(plan: _Plan, residuals: Tree, cotangents: Tree):
    rows, columns, shared = residuals
    if columns is None:
        g = cotangents[0]
        return _gradient(plan, rows, g, rows, g, shared), None, None
    g, h = (side[0] for side in cotangents) if plan.column_sums else (cotangents[0], None)
    return (
        _gradient(plan, rows, g, columns, h, shared),
        _gradient(plan, columns, h, rows, g, shared),
        None,
    )


_sums.defvjp(_forward, _backward)


# Transports. A block holds the rows of one device, cut into tiles, with the arrays beside them.


def _shift(block: Tree, plan: _Plan, hops: int = 1) -> Tree:
    """Sends every device's block to the device `hops` further along the ring."""
    ring = [(i, (i + hops) % plan.devices) for i in range(plan.devices)]
    return jax.tree.map(lambda a: lax.ppermute(a, plan.work.axes, ring), block)


def _gather(block: Tiles, plan: _Plan) -> Tiles:
    """Returns the tiles of all devices, in device order."""
    if plan.devices == 1:
        return block
    gather = partial(lax.all_gather, axis_name=plan.work.axes, tiled=True)
    valid = None if block.valid is None else np.tile(block.valid, (plan.devices, 1))
    return Tiles(jax.tree.map(gather, block.rows), valid)


def _scatter(sums: Tree, plan: _Plan) -> Tree:
    """Adds up every device's sums for all tiles, and returns those of this device's tiles."""
    if plan.devices == 1:
        return sums
    return jax.tree.map(partial(lax.psum_scatter, axis_name=plan.work.axes, tiled=True), sums)


def _add(a: Tree, b: Tree) -> Tree:
    return jax.tree.map(jnp.add, a, b)


def _half_of_pairs(plan: _Plan, block: Tiles) -> TilePairs:
    """Pairs of gathered tiles that this device visits: about half of all pairs.

    The device visits the triangle of its own block, then the blocks of the next devices, up to
    half-way around the ring. With an even number of devices, the blocks half-way around are visited
    twice, from both sides; all others once.
    """
    diagonal_block = tiles.triangle(block)
    if plan.devices == 1:
        return diagonal_block
    device, count = lax.axis_index(plan.work.axes), len(block.rows.x)
    block_pairs = tiles.grid(block, block)
    hops = jnp.arange(1, plan.devices // 2 + 1, dtype=jnp.int32)[:, None]
    rows = jnp.broadcast_to(block_pairs.row[None], (len(hops), len(block_pairs.row)))
    columns = (device + hops) % plan.devices * count + block_pairs.column[None]
    # Where two devices visit the same pairs, each sums for its own rows only.
    mirror = jnp.broadcast_to(2 * hops != plan.devices, columns.shape)
    return TilePairs(
        jnp.concatenate([diagonal_block.row, rows.ravel()]),
        jnp.concatenate([device * count + diagonal_block.column, columns.ravel()]),
        jnp.concatenate([diagonal_block.row != diagonal_block.column, mirror.ravel()]),
    )


def _sums_within(plan: _Plan, rows: Rows, shared: Tree) -> Tree:
    """Sums for every row over all rows; visits about half of the pairs."""
    block = tiles.cut(rows)
    sum_pairs = partial(tiles.sum_pairs, plan.work, block, shared=shared)
    if plan.transport == "gather":
        row_sums, column_sums = sum_pairs(
            _gather(block, plan), tile_pairs=_half_of_pairs(plan, block)
        )
        return tiles.join(_add(row_sums, _scatter(column_sums, plan)), len(rows.x))
    hops = plan.devices // 2

    def visit(carry, hop):
        sums, rows, column_sums = carry
        next_rows = _shift(rows, plan)  # does not depend on the sums, so both overlap
        columns = block._replace(rows=rows)
        # As in `_half_of_pairs`: half-way around, each device sums for its own rows only.
        tile_pairs = tiles.grid(block, columns, mirror=2 * hop != plan.devices)
        row_sums, update = sum_pairs(columns, tile_pairs=tile_pairs)
        return (_add(sums, row_sums), next_rows, _shift(_add(column_sums, update), plan)), None

    sums = _add(*sum_pairs(block, tile_pairs=tiles.triangle(block)))
    start = (sums, _shift(block.rows, plan), jax.tree.map(jnp.zeros_like, sums))
    (sums, _, column_sums), _ = lax.scan(visit, start, jnp.arange(1, hops + 1))
    return tiles.join(_add(sums, _shift(column_sums, plan, -hops - 1)), len(rows.x))


def _sums_between(plan: _Plan, rows: Rows, columns: Rows, shared: Tree) -> Tree:
    """Sums for every row over columns and, with `plan.column_sums`, for every column over rows."""
    block, own_columns = tiles.cut(rows), tiles.cut(columns)
    mirror = True if plan.column_sums else None

    def sum_pairs(columns_block):
        tile_pairs = tiles.grid(block, columns_block, mirror)
        return tiles.sum_pairs(plan.work, block, columns_block, shared, tile_pairs)

    if plan.transport == "gather":
        row_sums, column_sums = sum_pairs(_gather(own_columns, plan))
        column_sums = _scatter(column_sums, plan)
    else:

        def visit(carry, _):
            sums, rows, column_sums = carry
            next_rows = _shift(rows, plan)
            row_sums, update = sum_pairs(own_columns._replace(rows=rows))
            return (_add(sums, row_sums), next_rows, _shift(_add(column_sums, update), plan)), None

        start = zeros(jax.eval_shape(lambda: sum_pairs(own_columns)), plan.work)
        # After one hop per device, the sums of a block are back on its own device.
        (row_sums, _, column_sums), _ = lax.scan(
            visit, (start[0], own_columns.rows, start[1]), length=plan.devices
        )
    return tiles.join(row_sums, len(rows.x)), tiles.join(column_sums, len(columns.x))


def _gradient(plan: _Plan, rows: Rows, g: Tree, columns: Rows, h: Tree, shared: Tree) -> jax.Array:
    """Gradient [n, d] of the rows.

    Args:
      rows: the rows to differentiate by.
      g: cotangents of the sums of the rows.
      columns: the other side of the pairs.
      h: cotangents of the sums of the columns; None if the columns have no sums.
    """
    block = tiles.cut(rows._replace(aux=(rows.aux, g)))
    own_columns = tiles.cut(columns._replace(aux=(columns.aux, h)))

    def tile_gradient(columns_block):
        return tiles.gradient(
            plan.work, block, columns_block, shared, tiles.grid(block, columns_block)
        )

    if plan.transport == "gather":
        return tiles.join(tile_gradient(_gather(own_columns, plan)), len(rows.x))

    def visit(carry, _):
        gradient, rows = carry
        next_rows = _shift(rows, plan)
        return (gradient + tile_gradient(own_columns._replace(rows=rows)), next_rows), None

    start = zeros(jax.eval_shape(lambda: tile_gradient(own_columns)), plan.work)
    (gradient, _), _ = lax.scan(visit, (start, own_columns.rows), length=plan.devices)
    return tiles.join(gradient, len(rows.x))
