"""Memory of one device that a step needs, by purpose."""

import math
import re
from typing import Any

import jax

from ssl_jax.plan.program import Memory
from ssl_jax.plan.topologies import Topology
from ssl_jax.training.state import TrainState

# Fraction of a GPU's memory that JAX takes by default (XLA_PYTHON_CLIENT_MEM_FRACTION).
GPU_SHARE = 0.75
UNITS = {"B": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def device_limit(topology: Topology) -> int:
    """Returns the bytes that a program may use on one device."""
    chip = topology.chip
    share = GPU_SHARE if chip.kind == "gpu" else 1
    return int(share * chip.hbm_bytes) // chip.devices_per_chip


def bytes_per_device(tree: Any) -> int:
    """Returns the bytes of a tree's arrays on one device, without padding.

    Args:
      tree: tree of `jax.ShapeDtypeStruct` with shardings.
    """
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def argument_bytes(state: TrainState, batch: Any) -> dict[str, int]:
    """Returns the bytes of a step's arguments on one device, by the fields of `Memory`."""
    return {
        "parameters": bytes_per_device(state.params),
        "optimizer": bytes_per_device(state.opt_state),
        "extra": bytes_per_device((state.extra, state.probe, state.step)),
        "batch": bytes_per_device(batch),
    }


def from_analysis(state: TrainState, batch: Any, stats: Any, *, loss: int, limit: int) -> Memory:
    """Returns the memory of a compiled step, by the compiler's analysis.

    Args:
      stats: result of `jax.stages.Compiled.memory_analysis`.
      loss: bytes of the objective's temporaries.
      limit: bytes of one device.
    """
    arguments = argument_bytes(state, batch)
    # The new state overwrites the old one, so it needs no memory of its own.
    outputs = stats.output_size_in_bytes - stats.alias_size_in_bytes
    temporary = stats.temp_size_in_bytes + stats.generated_code_size_in_bytes + outputs
    loss = min(loss, temporary)
    return Memory(
        **arguments,
        activations=temporary - loss,
        loss=loss,
        padding=stats.argument_size_in_bytes - sum(arguments.values()),
        total=stats.argument_size_in_bytes + temporary,
        limit=limit,
    )


def from_error(state: TrainState, batch: Any, message: str, limit: int) -> Memory:
    """Returns the memory of a step that the compiler refused.

    Args:
      message: the compiler's error, for example "... total memory required for HLO temporaries
        (770.00G) exceeds available HBM (15.75G) ...".
      limit: bytes of one device.
    """
    arguments = argument_bytes(state, batch)
    sizes = [float(n) * UNITS[unit] for n, unit in re.findall(r"\(([\d.]+)([BKMGT])\)", message)]
    total = max(int(max(sizes, default=0)), limit + 1)
    activations = max(total - sum(arguments.values()), 0)
    return Memory(**arguments, activations=activations, loss=0, padding=0, total=total, limit=limit)
