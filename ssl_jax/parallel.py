"""The mesh, the shardings and the way from host rows to global arrays.

The only owner of the axis name: everywhere else the program is written over the global batch, and
how many devices or hosts hold it never changes what is computed.
"""

import contextlib
import os
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ssl_jax.errors import BAD_CONFIG, Fault

DATA = "data"
ROWS_PER_CORE = 32  # with fewer, a core as a device spends its time on waiting for the others
Tree = Any


def make_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """A one-dimensional mesh over `devices`, by default all devices of all processes."""
    devices = jax.devices() if devices is None else devices
    # Auto: under the default Explicit axes, much of what mixes rows is a sharding type error.
    return jax.make_mesh((len(devices),), (DATA,), axis_types=(AxisType.Auto,), devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def rows(mesh: Mesh) -> NamedSharding:
    """The first axis is divided over the devices."""
    return NamedSharding(mesh, PartitionSpec(DATA))


def shardings(layout: Tree, tree: Tree, mesh: Mesh) -> Tree:
    """Turns a prefix tree of the words "replicated" and "rows" into the leaves' shardings."""
    words = {"replicated": replicated(mesh), "rows": rows(mesh)}
    return jax.tree.map(
        lambda word, subtree: jax.tree.map(lambda _: words[word], subtree), layout, tree
    )


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
    asked = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if asked or jax.config.jax_num_cpu_devices > 0:  # type: ignore[attr-defined]
        return
    for devices in range(min(_cores(), (microbatch or batch_size) // ROWS_PER_CORE), 1, -1):
        with contextlib.suppress(Fault):
            check_batch(batch_size, devices, microbatch=microbatch, bn_group=bn_group, views=views)
            # Too late where the caller has used JAX before: then the devices are what they are.
            with contextlib.suppress(RuntimeError):
                jax.config.update("jax_num_cpu_devices", devices)
            return


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def compiler_options(mesh: Mesh) -> dict[str, bool | int] | None:
    """What `jax.jit` should tell the compiler of a program that runs for long on this mesh."""
    if mesh.devices.flat[0].platform != "cpu" or not 1 < _cores() <= mesh.size:
        return None
    # Every core has its device: a convolution that spreads over threads takes them from another.
    # Measured on a small ResNet's step: 10 % less time by this, 8 % by whole AVX-512 registers.
    return {"xla_cpu_multi_thread_eigen": False, "xla_cpu_prefer_vector_width": 512}


def check_batch(
    batch_size: int, devices: int, *, microbatch: int = 0, bn_group: int = 0, views: int = 1
) -> None:
    """Checks that a global batch can be divided as asked, before anything is compiled.

    Raises:
      Fault: devices would get unequal rows (the nearest sizes that do are named), or a group of
        `bn_group` rows would cross two chunks: a chunk takes its rows from every device.
    """
    for name, size in (("train.batch_size", batch_size), ("train.microbatch", microbatch)):
        if size % devices:
            below = size // devices * devices
            valid = [n for n in (below, below + devices) if n]
            raise Fault(
                f"{name}={size} does not divide over {devices} devices; "
                f"nearest sizes that do: {', '.join(map(str, valid))}",
                BAD_CONFIG,
            )
    if microbatch and batch_size % microbatch:
        raise Fault(
            f"train.microbatch={microbatch} does not divide train.batch_size={batch_size}",
            BAD_CONFIG,
        )
    rows_together = views * (microbatch // devices if microbatch else batch_size)
    if bn_group and rows_together % bn_group:
        what = "one device's rows of a micro-batch" if microbatch else "the batch"
        raise Fault(
            f"model.bn_group={bn_group} does not divide {what}: {rows_together} rows "
            f"({views} views an image)",
            BAD_CONFIG,
        )
