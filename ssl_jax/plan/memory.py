"""What a step's program needs of one device's memory, and for what."""

import math
import re
from typing import Any

import jax

from ssl_jax.plan.facts import Memory, Topology
from ssl_jax.plan.program import Memory, Topology
from ssl_jax.training.step import TrainState

# What JAX takes of a GPU's memory by default (XLA_PYTHON_CLIENT_MEM_FRACTION).
GPU_SHARE = 0.75
UNITS = {"B": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def limit(topology: Topology) -> int:
    """Bytes that a program may take on one device."""
    chip = topology.chip
    share = GPU_SHARE if chip.kind == "gpu" else 1
    return int(share * chip.hbm_bytes) // chip.devices_per_chip


def of_device(tree: Any) -> int:
    """Bytes of a tree's arrays on one device, without padding.

    Args:
      tree: of `jax.ShapeDtypeStruct` with shardings.
    """
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def arguments(state: TrainState, batch: Any) -> dict[str, int]:
    """Bytes of what a step starts with, by the fields of `Memory`."""
    return {
        "parameters": of_device(state.params),
        "optimizer": of_device(state.opt_state),
        "extra": of_device((state.extra, state.probe, state.step)),
        "batch": of_device(batch),
    }


def taken(state: TrainState, batch: Any, stats: Any, *, loss: int, limit: int) -> Memory:
    """By the compiler's account.

    Args:
      stats: of `jax.stages.Compiled.memory_analysis`.
      loss: bytes of the objective's temporaries.
    """
    given = arguments(state, batch)
    new = stats.output_size_in_bytes - stats.alias_size_in_bytes  # the state is written in place
    temporary = stats.temp_size_in_bytes + stats.generated_code_size_in_bytes + new
    loss = min(loss, temporary)
    return Memory(
        **given,
        activations=temporary - loss,
        loss=loss,
        padding=stats.argument_size_in_bytes - sum(given.values()),
        total=stats.argument_size_in_bytes + temporary,
        limit=limit,
    )


def refused(state: TrainState, batch: Any, message: str, limit: int) -> Memory:
    """From a refusal: "... required for HLO temporaries (770.00G) exceeds available HBM ..."."""
    given = arguments(state, batch)
    sizes = [float(n) * UNITS[unit] for n, unit in re.findall(r"\(([\d.]+)([BKMGT])\)", message)]
    needed = max(int(max(sizes, default=0)), limit + 1)
    activations = max(needed - sum(given.values()), 0)
    return Memory(**given, activations=activations, loss=0, padding=0, total=needed, limit=limit)
