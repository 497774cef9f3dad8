"""Reads rows of a large table that is divided by rows over devices; gradients travel as rows.

`Method.params_layout` "table" keeps such a parameter divided over the axis "fsdp" during the step.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from ssl_jax.errors import BAD_CONFIG, Fault
from ssl_jax.parallel.mesh import FSDP, ROWS

UNIT = 256  # rows; their number is a multiple of it
_TABLE, _BATCH = PartitionSpec(FSDP), PartitionSpec(ROWS)


def take(table: jax.Array, index: jax.Array) -> jax.Array:
    """Returns the rows of a table, [b, ..., d].

    Every device reads the rows that it holds, and sends them to the devices that asked for them.
    The gradient of every row that was read travels to the devices that hold the row, which add the
    gradients in the order of the batch. Therefore nothing of the table's own size travels, and the
    sums have the same bits on any number of devices. If more rows are read than a table that is
    whole on every device has, the devices add their gradients of the table instead.

    Args:
      table: [V, d]. V is a multiple of the devices of the axis "fsdp".
      index: int32 [b, ...] in [0, V), divided over all devices on the first axis.
    """
    mesh = jax.sharding.get_abstract_mesh()
    devices = {} if mesh.empty or mesh.size == 1 else dict(mesh.shape)
    if devices and len(table) % devices[FSDP]:
        raise ValueError(
            f"a table of {len(table)} rows cannot be divided over parallel.fsdp={devices[FSDP]} "
            "devices"
        )
    return _take(tuple(devices.items()), len(table), table, index)


def check(layout: Any, params: Any, mesh: Mesh) -> None:
    """Checks that every table can be divided over the devices of `parallel.fsdp`.

    Args:
      layout: `Method.params_layout`.
      params: arrays or their shapes.
      mesh: the devices; they may be abstract.

    Raises:
      Fault: `parallel.fsdp` does not divide the rows of a table.
    """
    parts = dict(mesh.shape).get(FSDP, 1)
    sizes = jax.tree.map(
        lambda kind, tree: [x.shape[0] for x in jax.tree.leaves(tree) if kind == "table"],
        layout,
        params,
    )
    for rows in jax.tree.leaves(sizes):
        if rows % parts:
            known = ", ".join(str(n) for n in range(1, UNIT + 1) if UNIT % n == 0)
            raise Fault(
                f"parallel.fsdp={parts} does not divide a table of {rows:,} rows, whose shape must "
                f"not depend on the devices. Choose one of: {known}",
                BAD_CONFIG,
            )


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _take(devices: tuple[tuple[str, int], ...], rows: int, table: Any, index: Any) -> Any:
    return _forward(devices, rows, table, index)[0]


def _forward(devices: tuple[tuple[str, int], ...], rows: int, table: Any, index: Any) -> Any:
    del rows
    if dict(devices).get(FSDP, 1) == 1:
        return table[index], index
    read = jax.shard_map(_read, in_specs=(_TABLE, _BATCH), out_specs=_BATCH, check_vma=False)
    return read(table, index), index


def _read(table: jax.Array, index: jax.Array) -> jax.Array:
    """Returns the rows of this device's `index`; `table` is this device's part."""
    wanted = lax.all_gather(index, FSDP, tiled=True)
    own, place = _own(wanted, len(table))
    found = jnp.where(own[..., None], table[place], 0)
    return lax.psum_scatter(found, FSDP, tiled=True)


def _own(index: jax.Array, rows: int) -> tuple[jax.Array, jax.Array]:
    """Returns (whether this device holds each row, the row's place in the device's part)."""
    place = index - lax.axis_index(FSDP) * rows
    own = (place >= 0) & (place < rows)
    return own, jnp.where(own, place, 0)


def _backward(devices: tuple[tuple[str, int], ...], rows: int, index: Any, gradient: Any) -> Any:
    sizes = dict(devices)
    if not sizes:
        return _sum(rows, index, gradient), None
    shape = sizes[FSDP]
    if shape == 1 and index.size > rows:
        add = partial(_add_tables, rows)
    else:
        add = partial(_add_rows, rows // shape)
    added = jax.shard_map(add, in_specs=(_BATCH, _BATCH), out_specs=_TABLE, check_vma=False)
    return added(index, gradient), None


def _add_tables(rows: int, index: jax.Array, gradient: jax.Array) -> jax.Array:
    return lax.psum(_sum(rows, index, gradient), ROWS)


def _add_rows(rows: int, index: jax.Array, gradient: jax.Array) -> jax.Array:
    """Returns the gradient of this device's part of the table, from the rows of all devices."""
    index, gradient = (lax.all_gather(x, ROWS, tiled=True) for x in (index, gradient))
    own, place = _own(index, rows)
    # The row behind the last one takes what belongs to other devices.
    return _sum(rows + 1, jnp.where(own, place, rows), gradient)[:rows]


def _sum(rows: int, index: jax.Array, gradient: jax.Array) -> jax.Array:
    total = jnp.zeros((rows, gradient.shape[-1]), gradient.dtype)
    return total.at[index.reshape(-1)].add(gradient.reshape(-1, gradient.shape[-1]))


_take.defvjp(_forward, _backward)


def padded_rows(count: int, unit: int = UNIT) -> int:
    """Returns the rows of a table for `count` words: a multiple of `unit`.

    The shape of the table then does not depend on the number of devices, up to `unit` of them.
    """
    return int(np.ceil(count / unit)) * unit
