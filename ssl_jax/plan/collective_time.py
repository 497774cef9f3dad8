"""Predicts the seconds of a collective on a torus, inside a host, and between hosts.

The formulas are those of "How to scale your model" (Austin et al. 2025, chapters 3 and 12). V is
the payload of the whole group and n the group's size. All-gather and reduce-scatter move
V (n - 1) / n into every device over all links of the group at once; all-reduce moves twice that.
All-to-all is bound by the links that cut the group in two halves.
"""

import math
from typing import NamedTuple

from ssl_jax.plan.program import Collective
from ssl_jax.plan.topologies import Topology


class Latency(NamedTuple):
    """Seconds of a message, independent of its size.

    Attributes:
      hop: seconds of one link of a torus, or of the switch inside a host.
      host: seconds of one phase of a collective between slices or hosts.
    """

    hop: float
    host: float


class Ring(NamedTuple):
    """Part of a torus axis that a group of devices covers; a line if not wrapped."""

    length: int
    wrapped: bool


class GroupShape(NamedTuple):
    """Shape of a group: `inner` devices in each of `outer` slices (TPU) or hosts (GPU)."""

    inner: int
    outer: int


# The torus takes one microsecond per hop (chapter 3). About 10 microseconds for NCCL's small
# collectives inside a host, and for a data centre's network, are assumed, not measured.
LATENCY = {"tpu": Latency(1e-6, 10e-6), "gpu": Latency(10e-6, 10e-6), "cpu": Latency(0.0, 0.0)}


def seconds(
    collective: Collective, topology: Topology, latency: Latency | None = None
) -> tuple[float, float]:
    """Returns the seconds of all executions in one step: (inside slices or hosts, between them)."""
    latency = latency or LATENCY[topology.chip.kind]
    shape = group_shape(collective, topology)
    inside = _inside_seconds(collective, topology, shape, latency.hop) if shape.inner > 1 else 0.0
    between = (
        _between_seconds(collective, topology, shape, latency.host) if shape.outer > 1 else 0.0
    )
    return inside * collective.count, between * collective.count


def group_shape(collective: Collective, topology: Topology) -> GroupShape:
    """Returns how a collective's group spreads over slices (TPU) or hosts (GPU).

    On a mesh (data, fsdp), devices that differ only in "fsdp" are neighbours.
    """
    group = collective.group
    if "dcn" not in collective.network:
        return GroupShape(group, 1)
    if collective.network == "dcn":
        return GroupShape(1, group)
    places = topology.hosts if topology.chip.kind == "gpu" else topology.slices
    stride = topology.devices // group if collective.axis == "data" else 1
    inner = min(group, max(1, topology.devices // places // stride))
    return GroupShape(inner, group // inner)


def rings(topology: Topology, axis: str, chips: int) -> tuple[Ring, ...]:
    """Returns the parts of the torus axes that a group of `chips` chips covers.

    Devices are numbered along the first axis first, so "fsdp" takes the first axes of the slice and
    "data" the last ones. Only a whole axis wraps around.
    """
    axes = list(zip(topology.shape, topology.wraps, strict=True))
    covered = []
    for size, wrapped in reversed(axes) if axis == "data" else axes:
        part = math.gcd(chips, size)
        if part > 1:
            covered.append(Ring(part, wrapped and part == size))
            chips //= part
    return tuple(covered) or (Ring(max(chips, 1), False),)


def _inside_seconds(
    collective: Collective, topology: Topology, shape: GroupShape, hop: float
) -> float:
    """Returns the seconds of one execution on ICI, NVLink or a CPU's memory."""
    chip, link = topology.chip, topology.chip.link_bandwidth
    # A reduce-scatter runs inside first, on the payload of all slices or hosts.
    scale = shape.outer if collective.kind == "reduce-scatter" else 1
    if chip.kind != "tpu":
        moved = _bytes_in(collective, shape.inner) * scale
        return moved / link + hop * _phases(collective.kind)
    chips = shape.inner // chip.devices_per_chip
    if chips <= 1:  # the cores of one chip share its memory
        return _bytes_in(collective, shape.inner) * scale / chip.hbm_bandwidth
    covered = rings(topology, collective.axis, chips)
    if collective.kind == "collective-permute":
        return collective.bytes / link + hop
    hops = sum(ring.length // 2 if ring.wrapped else ring.length - 1 for ring in covered)
    if collective.kind.endswith("all-to-all"):
        longest = max(covered)
        divisor = 8 if longest.wrapped else 4
        return collective.bytes * longest.length / divisor / link + hop * hops
    bandwidth = link * sum(2 if ring.wrapped else 1 for ring in covered)
    if collective.kind == "reduce-scatter":  # a chip receives the results of all its cores
        scale *= chip.devices_per_chip
    moved = _bytes_in(collective, chips) * scale
    return moved / bandwidth + hop * hops * _phases(collective.kind)


def _between_seconds(
    collective: Collective, topology: Topology, shape: GroupShape, latency: float
) -> float:
    """Returns the seconds of one execution on the hosts' network, apart from its part inside.

    Every device sends its 1 / inner of the payload to its counterparts in the other slices. All
    devices of a host share the host's bandwidth.
    """
    moved = _bytes_in(collective, shape.outer)
    senders = topology.devices / topology.hosts
    if collective.kind == "collective-permute":
        senders = senders if shape.inner == 1 else 1  # only the ends of a ring cross
    elif collective.kind in ("all-gather", "all-reduce"):
        moved /= shape.inner
    return moved * senders / topology.chip.dcn_bandwidth + latency * _phases(collective.kind)


def _bytes_in(collective: Collective, members: int) -> float:
    """Returns the bytes that one of `members` members receives.

    `collective.bytes` is the size of the result on one device.
    """
    if collective.kind == "collective-permute":
        return collective.bytes
    if collective.kind == "reduce-scatter":
        return collective.bytes * (members - 1)
    return collective.bytes * (members - 1) / members * _phases(collective.kind)


def _phases(kind: str) -> int:
    """Returns the number of phases: an all-reduce scatters sums, then gathers them."""
    return 2 if kind == "all-reduce" else 1
