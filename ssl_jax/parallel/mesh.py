"""The mesh, the shardings of arrays over it, and global arrays from the rows of each host."""

import contextlib
import os
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ssl_jax.errors import BAD_CONFIG, Fault
from ssl_jax.jobs.cores import usable_cores
from ssl_jax.parallel import sizes

DATA, FSDP = "data", "fsdp"
ROWS = (DATA, FSDP)  # the rows of a batch are sharded over all devices, along both axes
MIN_ROWS_PER_CORE = 32  # with fewer rows, a core mostly waits for the other cores
MIN_FSDP_ELEMENTS = 2**12  # gathering smaller arrays takes longer than sharding saves
Tree = Any


def make_mesh(devices: list[jax.Device] | None = None, *, fsdp: int = 1) -> Mesh:
    """Returns a mesh with axes ("data", "fsdp").

    Args:
      devices: devices of the mesh; by default all devices of all processes.
      fsdp: number of devices that share one copy of the parameters and optimizer state; with 1,
        every device holds a whole copy.

    Raises:
      Fault: `fsdp` does not divide the number of devices, or that of one slice of a multi-slice
        job.
    """
    # Sorted by process, so that the rows of one process are adjacent in the batch. The place of an
    # example in a batch, and so its BatchNorm group, then does not depend on the topology.
    devices = sorted(jax.devices() if devices is None else devices, key=_sort_key)
    slices = len({_slice(device) for device in devices})
    if len(devices) // slices % fsdp:
        where = f"the {len(devices) // slices} devices" + (" of a slice" if slices > 1 else "")
        raise Fault(f"parallel.fsdp={fsdp} does not divide {where}", BAD_CONFIG)
    # Auto axes: with the default Explicit axes, many operations that mix rows raise type errors.
    grid = np.array(devices).reshape(-1, fsdp)
    return Mesh(grid, ROWS, axis_types=(AxisType.Auto, AxisType.Auto))


def _sort_key(device: jax.Device) -> tuple[int, int, int]:
    return _slice(device), device.process_index, device.id


def _slice(device: jax.Device) -> int:
    return getattr(device, "slice_index", None) or 0  # CPU devices have no slice_index


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding in which every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def rows(mesh: Mesh) -> NamedSharding:
    """Returns the sharding that splits the first axis over all devices."""
    return NamedSharding(mesh, PartitionSpec(ROWS))


def fsdp_shardings(tree: Tree, mesh: Mesh) -> Tree:
    """Returns shardings that split parameters, and arrays of the same shapes, along FSDP.

    The longest axis that the FSDP size divides is split. Arrays without such an axis, or with
    fewer than MIN_FSDP_ELEMENTS elements, are replicated.
    """
    size = mesh.shape[FSDP]

    def sharding(leaf: Any) -> NamedSharding:
        axes = [axis for axis, length in enumerate(leaf.shape) if length % size == 0]
        if size == 1 or leaf.size < MIN_FSDP_ELEMENTS or not axes:
            return replicated(mesh)
        longest = max(axes, key=lambda axis: leaf.shape[axis])
        return NamedSharding(mesh, PartitionSpec(*[None] * longest, FSDP))

    return jax.tree.map(sharding, tree)


def replicate_parameters(layout: Tree, tree: Tree, mesh: Mesh) -> Tree:
    """Inside jit, gathers the arrays that `layout` calls "parameters" onto every device.

    Args:
      layout: prefix tree of words, as for `shardings`.
      tree: the arrays; those with another word are returned as they are.
      mesh: the mesh.
    """
    if mesh.shape[FSDP] == 1:
        return tree

    def replicate(word: str, subtree: Tree) -> Tree:
        if word != "parameters":
            return subtree
        return jax.lax.with_sharding_constraint(subtree, replicated(mesh))

    return jax.tree.map(replicate, layout, tree)


def whole(layout: Tree) -> Tree:
    """Returns a layout in which `replicate_parameters` also gathers tables."""
    return jax.tree.map(lambda word: "parameters" if word == "table" else word, layout)


def constrain(tree: Tree, layout: Tree) -> Tree:
    """Inside jit, constrains every array to its sharding in `layout`; does nothing without FSDP."""
    leaves = jax.tree.leaves(layout)
    if not leaves or leaves[0].mesh.shape[FSDP] == 1:
        return tree
    return jax.lax.with_sharding_constraint(tree, layout)


def shardings(layout: Tree, tree: Tree, mesh: Mesh) -> Tree:
    """Returns the sharding of every leaf of `tree`.

    Args:
      layout: prefix tree of words: "replicated", "rows", "parameters" (see `fsdp_shardings`) or
        "table", the same as "parameters".
      tree: arrays or their shapes.
      mesh: the mesh.
    """

    def subtree_shardings(word: str, subtree: Tree) -> Tree:
        if word in ("parameters", "table"):
            return fsdp_shardings(subtree, mesh)
        sharding = {"replicated": replicated, "rows": rows}[word](mesh)
        return jax.tree.map(lambda _: sharding, subtree)

    return jax.tree.map(subtree_shardings, layout, tree)


def to_global(batch: Tree, mesh: Mesh) -> Tree:
    """Returns global arrays, sharded on the first axis, from the rows that this process holds.

    A batch is a dict of arrays; evaluation arrays may be a tree below one key.

    Casts int64 to int32: devices receive example indices, which fit, and never positions in a run.
    """
    sharding = rows(mesh)

    def from_rows(value: np.ndarray) -> jax.Array:
        value = value.astype(np.int32) if value.dtype == np.int64 else value
        return jax.make_array_from_process_local_data(sharding, value)

    return jax.tree.map(from_rows, batch)


def use_cpu_cores_as_devices(
    batch_size: int, *, microbatch: int = 0, bn_group: int = 0, views: int = 1
) -> None:
    """Configures JAX to use each CPU core as a device, as far as the batch can be split.

    Picks the largest number of cores that divides the batch and gives every device at least
    MIN_ROWS_PER_CORE rows. Does nothing if the user has set the number of CPU devices, in a job of
    several processes, or if JAX has already initialized its devices. Accelerators are not affected.

    One CPU device keeps 1.4 cores busy. Split into two devices, a small ResNet's step takes two
    thirds of the time on two cores.

    Args:
      batch_size, microbatch, bn_group, views: as in `check_batch`.
    """
    if jax.distributed.is_initialized():  # whoever starts several processes assigns the cores
        return
    asked = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if asked or jax.config.jax_num_cpu_devices > 0:  # type: ignore[attr-defined]
        return
    most = min(usable_cores(), (microbatch or batch_size) // MIN_ROWS_PER_CORE)
    for devices in range(most, 1, -1):
        with contextlib.suppress(Fault):
            check_batch(batch_size, devices, microbatch=microbatch, bn_group=bn_group, views=views)
            # JAX raises RuntimeError if its devices are already initialized.
            with contextlib.suppress(RuntimeError):
                jax.config.update("jax_num_cpu_devices", devices)
            return


def compiler_options(mesh: Mesh) -> dict[str, bool | int] | None:
    """Returns the `compiler_options` of `jax.jit` for long-running programs on this mesh."""
    if mesh.devices.flat[0].platform != "cpu" or not 1 < usable_cores() <= mesh.size:
        return None
    # Every core is a device, so a multi-threaded convolution would take cores from other devices.
    # Measured on the step of a small ResNet: single-threaded Eigen saves 10 % of the time, and
    # 512-bit vectors (whole AVX-512 registers) save 8 %.
    return {"xla_cpu_multi_thread_eigen": False, "xla_cpu_prefer_vector_width": 512}


def check_batch(
    batch_size: int, devices: int, *, microbatch: int = 0, bn_group: int = 0, views: int = 1
) -> None:
    """Checks that a global batch can be split over the devices, before anything is compiled.

    Args:
      batch_size: images in the global batch.
      devices: number of devices.
      microbatch: images in a micro-batch; 0 for none.
      bn_group: rows that share BatchNorm statistics; 0 for the whole batch.
      views: full-size views per image, each a row of BatchNorm.

    Raises:
      Fault: devices would get different numbers of rows, or a group of `bn_group` rows would
        cross two chunks. The message gives the nearest valid sizes.
    """
    checked = sizes.check(
        batch_size=batch_size,
        devices=devices,
        microbatch=microbatch,
        bn_group=bn_group,
        views=views,
    )
    if problems := sizes.problems(checked):
        raise Fault("\n  ".join(problems), BAD_CONFIG)
