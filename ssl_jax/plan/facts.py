"""What is known of a compiled step: the values that a compiler leaves and a model reads."""

from typing import NamedTuple


class Chip(NamedTuple):
    name: str
    kind: str
    hbm_bytes: float
    hbm_bandwidth: float
    flops: float
    link_bandwidth: float
    axes: int
    dcn_bandwidth: float
    chips_per_host: int
    devices_per_chip: int


class Topology(NamedTuple):
    name: str
    chip: Chip
    shape: tuple[int, ...]
    slices: int
    devices: int
    hosts: int
    wraps: tuple[bool, ...]


class Collective(NamedTuple):
    kind: str
    bytes: int
    count: int  # type: ignore[assignment]
    group: int
    axis: str
    network: str
    source: str


class Memory(NamedTuple):
    parameters: int
    optimizer: int
    extra: int
    batch: int
    activations: int
    loss: int
    total: int
    limit: int


class Program(NamedTuple):
    topology: Topology
    global_batch: int
    memory: Memory
    flops: float
    even_flops: float
    bytes: float
    collectives: tuple[Collective, ...]
    replicated: tuple
    compile_seconds: float
    compiled_for: str
