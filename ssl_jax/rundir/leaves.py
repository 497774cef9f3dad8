"""Named leaves of a state, as checkpoints store and compare them."""

from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import SingleDeviceSharding

Tree = Any
Kind = list[Any]  # [dtype name, shape], as JSON stores it: ["float32", [8, 3]]
SHOWN = 10  # differences in one message


def flatten(tree: Tree) -> dict[tuple[str, ...], Any]:
    """Returns {path: leaf}, with paths such as ("params", "head", "kernel").

    Orbax then stores only nested dicts of arrays. Empty dicts, optimizer tuples and masked nodes
    are not stored; a restore takes them from the tree that it fills.
    """
    return {
        tuple(jax.tree_util.keystr((key,), simple=True) for key in path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def kinds(leaves: Mapping[tuple[str, ...], Any]) -> dict[str, Kind]:
    """Returns {"params/head/kernel": [dtype name, shape]} of flattened leaves."""
    return {"/".join(path): [str(x.dtype), list(x.shape)] for path, x in leaves.items()}


def with_sharding(leaf: Any) -> jax.ShapeDtypeStruct:
    """Returns the struct of a leaf with its sharding; without one, on the first local device."""
    sharding = getattr(leaf, "sharding", None) or SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def differences(saved: Mapping[str, Kind], expected: Mapping[str, Kind]) -> list[str]:
    """Describes how the leaves of a checkpoint differ from those of this run.

    Args:
      saved, expected: kinds by name, of the checkpoint and of this run.

    Returns:
      One line for each difference, at most SHOWN, and then a line with the number of others.
    """
    lines = [f"{name}: not in the checkpoint" for name in expected if name not in saved]
    lines += [f"{name}: only in the checkpoint" for name in saved if name not in expected]
    lines += [
        f"{name}: {_format(saved[name])} in the checkpoint, {_format(kind)} in this run"
        for name, kind in expected.items()
        if name in saved and saved[name] != kind
    ]
    if len(lines) > SHOWN:
        return [*lines[:SHOWN], f"and {len(lines) - SHOWN} more"]
    return lines


def _format(kind: Kind) -> str:
    dtype, shape = kind
    return f"{dtype}[{','.join(map(str, shape))}]"
