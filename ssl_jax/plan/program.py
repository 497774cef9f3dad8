"""What is known of a machine, and of the train step compiled for it: plain data.

Units everywhere: bytes, seconds, floating-point operations (a multiply-add is two).
"""

from typing import Any, NamedTuple


class Chip(NamedTuple):
    """One accelerator as it is sold; published figures, with their sources in `chips`."""

    name: str
    kind: str  # "tpu", "gpu" or "cpu"
    hbm_bytes: int  # of the chip
    hbm_bandwidth: float  # bytes/s of the chip
    flops: float  # bfloat16 per second of the chip, by its data sheet
    link_bandwidth: float  # bytes/s one way: of one ICI link, or of all NVLinks of a GPU together
    axes: int  # of the torus of ICI links; 0 where every chip reaches every other
    dcn_bandwidth: float  # bytes/s one way, of a host
    chips_per_host: int
    devices_per_chip: int = 1  # what JAX counts: two cores of a v2 or v3 chip, else the chip


class Topology(NamedTuple):
    """Chips that are rented together."""

    name: str  # as asked for: "v5e:16x16"
    chip: Chip
    shape: tuple[int, ...]  # chips along the axes of one slice; (GPUs of a host, hosts)
    slices: int
    devices: int  # as JAX counts them, of all slices
    hosts: int  # of all slices
    wraps: tuple[bool, ...]  # whether the links along an axis close to a ring

    @property
    def chips(self) -> int:
        """Of all slices."""
        return self.devices // self.chip.devices_per_chip


class Collective(NamedTuple):
    """Equal exchanges between devices, as they stand in the compiled program."""

    kind: str  # "all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute"
    bytes: int  # of the result, on one device, of one execution
    count: int  # type: ignore[assignment]  # executions a step, loops counted
    group: int  # devices that exchange with each other
    axis: str  # of the mesh: "data", "fsdp", "data,fsdp", or "other"
    network: str  # "ici", "dcn", "ici+dcn", "nvlink", "nvlink+dcn", "memory"
    source: str  # the operation as the program's code names it


class Memory(NamedTuple):
    """Bytes on one device at the fullest moment of a step."""

    parameters: int
    optimizer: int
    extra: int  # statistics, momentum encoder, queue, probe
    batch: int
    activations: int  # all temporaries but the loss'
    loss: int  # temporaries of the objective and its gradient, compiled alone
    padding: int  # what the device's layouts add to the arguments above
    total: int
    limit: int  # what one device has

    @property
    def headroom(self) -> int:
        """Bytes left; negative where it does not fit."""
        return self.limit - self.total


class Replicated(NamedTuple):
    """Work on the batch that devices repeat, or examples that they exchange, instead of keeping
    each to its own rows."""

    name: str  # of the operation, as the program's code names it
    shape: str  # of its result on one device: "bf16[8192,112,112,64]"
    flops: float  # of one device beyond its even share, a step; 0 where only bytes travel
    source: str = ""  # file:line, where the compiler knows it
    bytes: int = 0  # of the images or activations that one device gets from others, a step


class Program(NamedTuple):
    """The train step compiled for a topology."""

    topology: Topology
    global_batch: int  # images
    memory: Memory
    flops: float  # of one device, a step
    even_flops: float  # of the whole step, on one device, divided by the devices
    bytes: float  # from and to HBM, of one device, a step
    collectives: tuple[Collective, ...]
    replicated: tuple[Replicated, ...]
    compile_seconds: float
    compiled_for: str  # what was compiled, and what of the above is modelled
    mesh: tuple[tuple[str, int], ...] = ()  # (axis, devices), slowest first
    out_of_memory: str = ""  # the compiler's refusal; flops, bytes and collectives may be 0 then


def to_json(program: Program) -> dict[str, Any]:
    """A tree of dicts, lists and numbers."""

    def plain(value: Any) -> Any:
        if hasattr(value, "_asdict"):
            return {name: plain(field) for name, field in value._asdict().items()}
        return [plain(item) for item in value] if isinstance(value, tuple) else value

    return plain(program)


def from_json(tree: dict[str, Any]) -> Program:
    """The program that `to_json` wrote."""
    topology = dict(tree["topology"])
    topology["chip"] = Chip(**topology["chip"])
    topology["shape"], topology["wraps"] = tuple(topology["shape"]), tuple(topology["wraps"])
    changed = {
        "topology": Topology(**topology),
        "memory": Memory(**tree["memory"]),
        "collectives": tuple(Collective(**each) for each in tree["collectives"]),
        "replicated": tuple(Replicated(**each) for each in tree["replicated"]),
        "mesh": tuple((name, size) for name, size in tree["mesh"]),
    }
    return Program(**{**tree, **changed})
