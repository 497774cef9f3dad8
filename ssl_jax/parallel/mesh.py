"""The mesh, the shardings and the way from host rows to global arrays."""

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
ROWS = (DATA, FSDP)  # a batch's rows are divided over all devices, along both axes
ROWS_PER_CORE = 32  # with fewer, a core as a device spends its time on waiting for the others
SMALLEST = 2**12  # elements; what is less takes longer to gather than it saves
Tree = Any


def make_mesh(devices: list[jax.Device] | None = None, *, fsdp: int = 1) -> Mesh:
    """A mesh of axes ("data", "fsdp") over `devices`, by default all devices of all processes.

    Args:
      fsdp: devices over which parameters and optimizer state are divided; 1 for none.

    Raises:
      Fault: the devices, or those of one slice of a multi-slice job, cannot be divided so.
    """
    # In the order of their processes, so that each one's rows of a batch are neighbours: which
    # example is where in a batch, and so in which group of BatchNorm, depends on no topology.
    devices = sorted(jax.devices() if devices is None else devices, key=_place)
    slices = len({_slice(device) for device in devices})
    if len(devices) // slices % fsdp:
        where = f"the {len(devices) // slices} devices" + (" of a slice" if slices > 1 else "")
        raise Fault(f"parallel.fsdp={fsdp} does not divide {where}", BAD_CONFIG)
    # Auto: under the default Explicit axes, much of what mixes rows is a sharding type error.
    grid = np.array(devices).reshape(-1, fsdp)
    return Mesh(grid, ROWS, axis_types=(AxisType.Auto, AxisType.Auto))


def _place(device: jax.Device) -> tuple[int, int, int]:
    return _slice(device), device.process_index, device.id


def _slice(device: jax.Device) -> int:
    return getattr(device, "slice_index", None) or 0  # CPUs have none


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def rows(mesh: Mesh) -> NamedSharding:
    """The first axis is divided over the devices."""
    return NamedSharding(mesh, PartitionSpec(ROWS))


def divided(tree: Tree, mesh: Mesh) -> Tree:
    """Shardings of parameters, and of what has their shapes: the longest axis over FSDP.

    What is small, or has no axis that FSDP divides, is whole on every device.
    """
    size = mesh.shape[FSDP]

    def sharding(leaf: Any) -> NamedSharding:
        axes = [axis for axis, length in enumerate(leaf.shape) if length % size == 0]
        if size == 1 or leaf.size < SMALLEST or not axes:
            return replicated(mesh)
        longest = max(axes, key=lambda axis: leaf.shape[axis])
        return NamedSharding(mesh, PartitionSpec(*[None] * longest, FSDP))

    return jax.tree.map(sharding, tree)


def gathered(layout: Tree, tree: Tree, mesh: Mesh) -> Tree:
    """Inside jit: what `layout` calls "parameters" whole on every device, to compute with."""
    if mesh.shape[FSDP] == 1:
        return tree

    def of_word(word: str, subtree: Tree) -> Tree:
        whole = jax.lax.with_sharding_constraint
        return whole(subtree, replicated(mesh)) if word == "parameters" else subtree

    return jax.tree.map(of_word, layout, tree)


def constrained(tree: Tree, layout: Tree) -> Tree:
    """Inside jit: every array divided as its sharding of `layout` says, if any is over FSDP."""
    leaves = jax.tree.leaves(layout)
    if not leaves or leaves[0].mesh.shape[FSDP] == 1:
        return tree
    return jax.lax.with_sharding_constraint(tree, layout)


def shardings(layout: Tree, tree: Tree, mesh: Mesh) -> Tree:
    """Turns a prefix tree of words into the leaves' shardings.

    The words: "replicated", "rows", and "parameters", which are `divided`.
    """

    def of_word(word: str, subtree: Tree) -> Tree:
        if word == "parameters":
            return divided(subtree, mesh)
        sharding = {"replicated": replicated, "rows": rows}[word](mesh)
        return jax.tree.map(lambda _: sharding, subtree)

    return jax.tree.map(of_word, layout, tree)


def to_global(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Makes global arrays, sharded on the first axis, from the rows that this process holds.

    64-bit integers become 32-bit: the device sees example indices, never positions in a run.
    """
    sharding = rows(mesh)
    return {
        name: jax.make_array_from_process_local_data(
            sharding, value.astype(np.int32) if value.dtype == np.int64 else value
        )
        for name, value in batch.items()
    }


def use_cores(batch_size: int, *, microbatch: int = 0, bn_group: int = 0, views: int = 1) -> None:
    """Makes CPU cores devices, as many as divide the batch, if none was asked for.

    XLA keeps 1.4 cores busy with one device's program: as two devices, two cores run a small
    ResNet's step in two thirds of the time. Nothing changes where there is an accelerator.
    """
    if jax.distributed.is_initialized():  # whoever starts several processes shares out the cores
        return
    asked = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if asked or jax.config.jax_num_cpu_devices > 0:  # type: ignore[attr-defined]
        return
    for devices in range(min(usable_cores(), (microbatch or batch_size) // ROWS_PER_CORE), 1, -1):
        with contextlib.suppress(Fault):
            check_batch(batch_size, devices, microbatch=microbatch, bn_group=bn_group, views=views)
            # Too late where the caller has used JAX before: then the devices are what they are.
            with contextlib.suppress(RuntimeError):
                jax.config.update("jax_num_cpu_devices", devices)
            return


def compiler_options(mesh: Mesh) -> dict[str, bool | int] | None:
    """What `jax.jit` should tell the compiler of a program that runs for long on this mesh."""
    if mesh.devices.flat[0].platform != "cpu" or not 1 < usable_cores() <= mesh.size:
        return None
    # Every core has its device: a convolution that spreads over threads takes them from another.
    # Measured on a small ResNet's step: 10 % less time by this, 8 % by whole AVX-512 registers.
    return {"xla_cpu_multi_thread_eigen": False, "xla_cpu_prefer_vector_width": 512}


def check_batch(
    batch_size: int, devices: int, *, microbatch: int = 0, bn_group: int = 0, views: int = 1
) -> None:
    """Checks that a global batch can be divided as asked, before anything is compiled.

    Raises:
      Fault: devices would get unequal rows, or a group of `bn_group` rows would cross two chunks;
        the nearest sizes that are right are named.
    """
    checked = sizes.check(
        batch_size=batch_size,
        devices=devices,
        microbatch=microbatch,
        bn_group=bn_group,
        views=views,
    )
    if wrong := sizes.problems(checked):
        raise Fault("\n  ".join(wrong), BAD_CONFIG)
