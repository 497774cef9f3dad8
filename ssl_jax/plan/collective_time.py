"""How long a collective takes: rings on a torus, a switch inside a host, hosts between them.

The formulas are those of "How to scale your model" (Austin et al. 2025, chapters 3 and 12), with
V the payload of the whole group and n its size: all-gather and reduce-scatter move V (n - 1) / n
into every device over all links of the group at once, all-reduce twice that, all-to-all is bound
by the links that cut the group in two.
"""

import math
from typing import NamedTuple

from ssl_jax.plan.program import Collective, Topology


class Latency(NamedTuple):
    """Seconds that a message takes whatever its size.

    Attributes:
      hop: inside a slice or host: of one link of a torus, or of a switch.
      host: between slices or hosts, once for each phase.
    """

    hop: float
    host: float


class Ring(NamedTuple):
    """What a group of devices holds of one axis of a torus; without a wrap it is a line."""

    length: int
    wrapped: bool


class Level(NamedTuple):
    """A group of devices: so many inside each slice or host, over so many slices or hosts."""

    inner: int
    outer: int


# The torus: one microsecond a hop (chapter 3). Inside a host NCCL's small collectives take about
# 10 microseconds, and a data centre's network about as long: assumed, not measured here.
LATENCY = {"tpu": Latency(1e-6, 10e-6), "gpu": Latency(10e-6, 10e-6), "cpu": Latency(0.0, 0.0)}


def seconds(
    collective: Collective, topology: Topology, latency: Latency | None = None
) -> tuple[float, float]:
    """(inside slices or hosts, between them): seconds of all its executions in one step."""
    latency = latency or LATENCY[topology.chip.kind]
    level = split(collective, topology)
    inside = _inside(collective, topology, level, latency.hop) if level.inner > 1 else 0.0
    between = _between(collective, topology, level, latency.host) if level.outer > 1 else 0.0
    return inside * collective.count, between * collective.count


def split(collective: Collective, topology: Topology) -> Level:
    """How a collective's group lies on slices (TPU) or hosts (GPU).

    Of a mesh (data, fsdp), devices that differ in "fsdp" alone are next to one another.
    """
    group = collective.group
    if "dcn" not in collective.network:
        return Level(group, 1)
    if collective.network == "dcn":
        return Level(1, group)
    places = topology.hosts if topology.chip.kind == "gpu" else topology.slices
    stride = topology.devices // group if collective.axis == "data" else 1
    inner = min(group, max(1, topology.devices // places // stride))
    return Level(inner, group // inner)


def rings(topology: Topology, axis: str, chips: int) -> tuple[Ring, ...]:
    """The parts of the torus' axes that a group of so many chips holds.

    Devices are counted along the first axis first: "fsdp" takes the first axes of the slice, "data"
    the last. Only a whole axis wraps around.
    """
    axes = list(zip(topology.shape, topology.wraps, strict=True))
    found = []
    for size, wrapped in reversed(axes) if axis == "data" else axes:
        part = math.gcd(chips, size)
        if part > 1:
            found.append(Ring(part, wrapped and part == size))
            chips //= part
    return tuple(found) or (Ring(max(chips, 1), False),)


def _inside(collective: Collective, topology: Topology, level: Level, hop: float) -> float:
    """One execution's seconds on ICI, NVLink or a CPU's memory."""
    chip, link = topology.chip, topology.chip.link_bandwidth
    # A sum is scattered inside first, while it is whole.
    whole = level.outer if collective.kind == "reduce-scatter" else 1
    if chip.kind != "tpu":
        moved = _moved(collective, level.inner) * whole
        return moved / link + hop * _phases(collective.kind)
    chips = level.inner // chip.devices_per_chip
    if chips <= 1:  # the cores of one chip share its memory
        return _moved(collective, level.inner) * whole / chip.hbm_bandwidth
    held = rings(topology, collective.axis, chips)
    if collective.kind == "collective-permute":
        return collective.bytes / link + hop
    hops = sum(ring.length // 2 if ring.wrapped else ring.length - 1 for ring in held)
    if collective.kind.endswith("all-to-all"):
        longest = max(held)
        cut = 8 if longest.wrapped else 4
        return collective.bytes * longest.length / cut / link + hop * hops
    bandwidth = link * sum(2 if ring.wrapped else 1 for ring in held)
    if collective.kind == "reduce-scatter":  # what a chip holds is of all its cores
        whole *= chip.devices_per_chip
    moved = _moved(collective, chips) * whole
    return moved / bandwidth + hop * hops * _phases(collective.kind)


def _between(collective: Collective, topology: Topology, level: Level, latency: float) -> float:
    """One execution's seconds on the hosts' network, after or before its part inside.

    Every device carries its own 1 / inner of the payload to its like in the other slices; all
    devices of a host share the host's bandwidth.
    """
    moved = _moved(collective, level.outer)
    senders = topology.devices / topology.hosts
    if collective.kind == "collective-permute":
        senders = senders if level.inner == 1 else 1  # a ring crosses at its ends alone
    elif collective.kind in ("all-gather", "all-reduce"):
        moved /= level.inner
    return moved * senders / topology.chip.dcn_bandwidth + latency * _phases(collective.kind)


def _moved(collective: Collective, members: int) -> float:
    """Bytes into one of so many members; `bytes` is what one device gets as the result."""
    if collective.kind == "collective-permute":
        return collective.bytes
    if collective.kind == "reduce-scatter":
        return collective.bytes * (members - 1)
    return collective.bytes * (members - 1) / members * _phases(collective.kind)


def _phases(kind: str) -> int:
    """An all-reduce scatters sums, then gathers them."""
    return 2 if kind == "all-reduce" else 1
