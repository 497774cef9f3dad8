"""Sums over all pairs of rows of a function of their logit, without ever holding the pairs.

The one engine under every softmax-contrastive loss. A loss names, for one tile of logits, the
terms to be summed for each row; everything else it says with these sums is plain autodiff over n
numbers. Logits are made tile by tile and again for the gradient, so memory is O(n d).

Why the gradient is cheap: with term f, cotangents g of the sums and symmetric logits,

    d/dx_i = sum_j (g_i + g_j) f'(x_i . x_j) x_j

so each row's gradient needs only the other rows and their cotangents, n numbers: no gradient of an
embedding crosses devices (compare Inf-CL, arXiv 2410.17243, which sends them around the ring).
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import PartitionSpec

from ssl_jax.losses import tiles
from ssl_jax.losses.tiles import Body, Places, Rows, Tiles, Work, wide, zeros

Tree = Any

# Below, one gather is quicker than the hops of a ring; above, its result costs memory.
GATHER_BYTES = 64 * 2**20
TRANSPORTS = ("gather", "ring")


class _Plan(NamedTuple):
    work: Work
    devices: int
    transport: str
    both: bool  # sums for the columns too


def pair_sums(
    body: Body,
    rows: Rows,
    columns: Rows | None = None,
    *,
    shared: Tree = (),
    both: bool = False,
    transport: str | None = None,
    dtype: Any = None,
) -> Tree:
    """Sums the body's terms over all pairs, for each row.

    Under `jax.set_mesh` rows are divided over all devices of the mesh and stay so.

    Args:
      body: (logits [r, c], own, other, shared) -> (terms, monitors), trees of [r, c] or of what
        broadcasts to it, elementwise in the logits. `own` holds `aux` of the rows that are summed
        for, `other` of the rows that are summed over, broadcasting to [r, c]. Terms are
        differentiable in the logits; monitors are not.
      columns: the rows to sum over; None for `rows` themselves, which must then have groups.
      shared: scalars for the body, without gradient.
      both: also sum for each column, over the rows.
      transport: how columns reach a device: "gather" all at once, or "ring", a block at a time.
        None chooses by size.
      dtype: in which rows are multiplied and travel, bfloat16 for accelerators' speed; products
        are summed in `rows.x.dtype`, float32 for bfloat16. None for that too.

    Returns:
      (terms, monitors), trees of [n]; with `both`, a pair of these: for rows, for columns.

    Raises:
      ValueError: rows that do not divide over the devices, an unknown transport, or a dtype whose
        products are not summed in the rows' type.
    """
    mesh = jax.sharding.get_abstract_mesh()
    devices = 1 if mesh.empty else mesh.size
    for side in (rows, columns):
        if side is not None and len(side.x) % devices:
            raise ValueError(f"{len(side.x)} rows do not divide over {devices} devices")
    if transport not in (None, *TRANSPORTS):
        raise ValueError(f"unknown transport {transport!r}; there are: {', '.join(TRANSPORTS)}")
    dtype = rows.x.dtype if dtype is None else dtype
    if wide(dtype) != rows.x.dtype:
        raise ValueError(f"products of {jnp.dtype(dtype)} for rows of {rows.x.dtype}")
    if transport is None:
        size = (columns or rows).x.size * jnp.dtype(dtype).itemsize
        transport = "gather" if size <= GATHER_BYTES else "ring"
    split = devices > 1
    axes = mesh.axis_names if split else ()
    work = Work(body, axes, jnp.dtype(dtype))
    plan = _Plan(work, devices, transport if split else "gather", both)

    def local(rows: Rows, columns: Rows | None, shared: Tree) -> Tree:
        fixed = (rows[1:], columns and columns[1:], shared)
        return _sums(plan, rows.x, columns and columns.x, fixed)

    if split:
        by_rows = PartitionSpec(plan.work.axes)
        local = jax.shard_map(
            local, in_specs=(by_rows, by_rows, PartitionSpec()), out_specs=by_rows
        )
    return local(rows, columns, shared)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _sums(plan: _Plan, x: jax.Array, y: jax.Array | None, fixed: Tree) -> Tree:
    return _forward(plan, x, y, fixed)[0]


def _forward(plan: _Plan, x: jax.Array, y: jax.Array | None, fixed: Tree):
    rows_rest, columns_rest, shared = fixed
    rows = Rows(x.astype(plan.work.dtype), *rows_rest)
    if y is None:
        return _within(plan, rows, shared), (rows, None, shared)
    columns = Rows(y.astype(plan.work.dtype), *columns_rest)
    found = _between(plan, rows, columns, shared)
    return (found if plan.both else found[0]), (rows, columns, shared)


def _backward(plan: _Plan, residuals: Tree, cotangents: Tree):
    rows, columns, shared = residuals
    if columns is None:
        g = cotangents[0]
        return _pull(plan, rows, g, rows, g, shared), None, None
    g, h = (side[0] for side in cotangents) if plan.both else (cotangents[0], None)
    return (
        _pull(plan, rows, g, columns, h, shared),
        _pull(plan, columns, h, rows, g, shared),
        None,
    )


_sums.defvjp(_forward, _backward)


# Transports. A block is the rows of one device, in tiles, with whatever travels beside them.


def _shift(block: Tree, plan: _Plan, hops: int = 1) -> Tree:
    """Every device's block to the device `hops` further on."""
    ring = [(i, (i + hops) % plan.devices) for i in range(plan.devices)]
    return jax.tree.map(lambda a: lax.ppermute(a, plan.work.axes, ring), block)


def _gather(block: Tiles, plan: _Plan) -> Tiles:
    """The tiles of all devices, in their order."""
    if plan.devices == 1:
        return block
    gather = partial(lax.all_gather, axis_name=plan.work.axes, tiled=True)
    valid = None if block.valid is None else np.tile(block.valid, (plan.devices, 1))
    return Tiles(jax.tree.map(gather, block.rows), valid)


def _scatter(sums: Tree, plan: _Plan) -> Tree:
    """Every device's sums for the tiles of all devices, to those whose tiles they are."""
    if plan.devices == 1:
        return sums
    return jax.tree.map(partial(lax.psum_scatter, axis_name=plan.work.axes, tiled=True), sums)


def _add(a: Tree, b: Tree) -> Tree:
    return jax.tree.map(jnp.add, a, b)


def _half(plan: _Plan, block: Tiles) -> Places:
    """Of the pairs of gathered tiles the half that this device visits.

    Its own triangle, then the blocks of the devices after it, as far as half-way around: pairs
    that far apart, of an even number of devices, are visited twice, all others once.
    """
    own = tiles.triangle(block)
    if plan.devices == 1:
        return own
    here, count = lax.axis_index(plan.work.axes), len(block.rows.x)
    further = tiles.grid(block, block)
    hops = jnp.arange(1, plan.devices // 2 + 1, dtype=jnp.int32)[:, None]
    rows = jnp.broadcast_to(further.row[None], (len(hops), len(further.row)))
    columns = (here + hops) % plan.devices * count + further.column[None]
    # Where two devices visit the same pairs, each sums for its own rows only.
    mirror = jnp.broadcast_to(2 * hops != plan.devices, columns.shape)
    return Places(
        jnp.concatenate([own.row, rows.ravel()]),
        jnp.concatenate([here * count + own.column, columns.ravel()]),
        jnp.concatenate([own.row != own.column, mirror.ravel()]),
    )


def _within(plan: _Plan, rows: Rows, shared: Tree) -> Tree:
    """Sums for every row over all rows, visiting about half of the pairs."""
    block = tiles.cut(rows)
    sum_pairs = partial(tiles.sum_pairs, plan.work, block, shared=shared)
    if plan.transport == "gather":
        mine, theirs = sum_pairs(_gather(block, plan), places=_half(plan, block))
        return tiles.uncut(_add(mine, _scatter(theirs, plan)), len(rows.x))
    hops = plan.devices // 2

    def visit(carry, hop):
        sums, rows, theirs = carry
        coming = _shift(rows, plan)  # independent of the work on these: they overlap
        guest = block._replace(rows=rows)
        # As in `_half`: half-way around, each sums for its own rows only.
        places = tiles.grid(block, guest, mirror=2 * hop != plan.devices)
        mine, more = sum_pairs(guest, places=places)
        return (_add(sums, mine), coming, _shift(_add(theirs, more), plan)), None

    sums = _add(*sum_pairs(block, places=tiles.triangle(block)))
    start = (sums, _shift(block.rows, plan), jax.tree.map(jnp.zeros_like, sums))
    (sums, _, theirs), _ = lax.scan(visit, start, jnp.arange(1, hops + 1))
    return tiles.uncut(_add(sums, _shift(theirs, plan, -hops - 1)), len(rows.x))


def _between(plan: _Plan, rows: Rows, columns: Rows, shared: Tree) -> Tree:
    """Sums for every row over all columns and, with `plan.both`, for every column over all rows."""
    block, others = tiles.cut(rows), tiles.cut(columns)
    mirror = True if plan.both else None

    def sum_pairs(guest):
        places = tiles.grid(block, guest, mirror)
        return tiles.sum_pairs(plan.work, block, guest, shared, places)

    if plan.transport == "gather":
        mine, theirs = sum_pairs(_gather(others, plan))
        theirs = _scatter(theirs, plan)
    else:

        def visit(carry, _):
            sums, rows, theirs = carry
            coming = _shift(rows, plan)
            mine, more = sum_pairs(others._replace(rows=rows))
            return (_add(sums, mine), coming, _shift(_add(theirs, more), plan)), None

        start = zeros(jax.eval_shape(lambda: sum_pairs(others)), plan.work)
        # After as many hops as there are devices, a block's sums are home again.
        (mine, _, theirs), _ = lax.scan(
            visit, (start[0], others.rows, start[1]), length=plan.devices
        )
    return tiles.uncut(mine, len(rows.x)), tiles.uncut(theirs, len(columns.x))


def _pull(plan: _Plan, rows: Rows, g: Tree, columns: Rows, h: Tree, shared: Tree) -> jax.Array:
    """Gradient [n, d] of the rows, from the cotangents of the rows' sums (g), the columns' (h)."""
    block = tiles.cut(rows._replace(aux=(rows.aux, g)))
    others = tiles.cut(columns._replace(aux=(columns.aux, h)))

    def pull(guest):
        return tiles.pull(plan.work, block, guest, shared, tiles.grid(block, guest))

    if plan.transport == "gather":
        return tiles.uncut(pull(_gather(others, plan)), len(rows.x))

    def visit(carry, _):
        gradient, rows = carry
        coming = _shift(rows, plan)
        return (gradient + pull(others._replace(rows=rows)), coming), None

    start = zeros(jax.eval_shape(lambda: pull(others)), plan.work)
    (gradient, _), _ = lax.scan(visit, (start, others.rows), length=plan.devices)
    return tiles.uncut(gradient, len(rows.x))
