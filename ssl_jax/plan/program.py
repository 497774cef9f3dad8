"""Plain data about a train step that was compiled for a topology.

Units everywhere: bytes, seconds, floating-point operations (a multiply-add is two). The field names
are the keys of plan.json and program.json.
"""

from typing import Any, NamedTuple

from ssl_jax.plan.chips import Chip
from ssl_jax.plan.topologies import Topology


class Collective(NamedTuple):
    """Equal collectives of the compiled program.

    Attributes:
      kind: "all-reduce", "all-gather", "reduce-scatter", "all-to-all" or "collective-permute".
      bytes: bytes of the result of one execution on one device.
      count: executions per step, with loops counted.
      group: number of devices that exchange with each other.
      axis: mesh axis: "data", "fsdp", "data,fsdp" or "other".
      network: "ici", "dcn", "ici+dcn", "nvlink", "nvlink+dcn" or "memory".
      source: name of the operation in the program's code.
    """

    kind: str
    bytes: int
    count: int  # type: ignore[assignment]
    group: int
    axis: str
    network: str
    source: str


class Memory(NamedTuple):
    """Bytes on one device at the moment of a step that needs the most memory.

    Attributes:
      extra: statistics, momentum encoder, queue and probe.
      activations: all temporaries except those of the loss.
      loss: temporaries of the objective and its gradient, compiled alone.
      padding: bytes that the device's layouts add to the arguments above.
      limit: bytes that one device has.
    """

    parameters: int
    optimizer: int
    extra: int
    batch: int
    activations: int
    loss: int
    padding: int
    total: int
    limit: int

    @property
    def headroom(self) -> int:
        """Free bytes; negative if the step does not fit."""
        return self.limit - self.total


class Replicated(NamedTuple):
    """Work that devices repeat, or examples that devices exchange.

    In a correct program each device works on its own rows of the batch and keeps them.

    Attributes:
      name: name of the operation in the program's code.
      shape: its result on one device: "bf16[8192,112,112,64]".
      flops: FLOPs per step of one device beyond its even share; 0 if only bytes are exchanged.
      source: "file:line", if the compiler knows it.
      bytes: bytes of images or activations that one device receives from others per step.
    """

    name: str
    shape: str
    flops: float
    source: str = ""
    bytes: int = 0


class Program(NamedTuple):
    """The train step compiled for a topology.

    Attributes:
      global_batch: number of images.
      flops: FLOPs of one device per step.
      even_flops: FLOPs of the whole step on one device, divided by the number of devices.
      bytes: bytes that one device reads from and writes to HBM per step.
      compiled_for: sentence that says what was compiled and which numbers are modelled.
      mesh: (axis, devices) pairs, slowest axis first.
      out_of_memory: error message of a compiler that ran out of device memory, else "". If set,
        `flops`, `bytes` and `collectives` are not those of a compiled program and may be 0.
    """

    topology: Topology
    global_batch: int
    memory: Memory
    flops: float
    even_flops: float
    bytes: float
    collectives: tuple[Collective, ...]
    replicated: tuple[Replicated, ...]
    compile_seconds: float
    compiled_for: str
    mesh: tuple[tuple[str, int], ...] = ()
    out_of_memory: str = ""


class MeasuredStep(NamedTuple):
    """Measurements of the step on this machine.

    Attributes:
      step: median seconds of `steps` steps.
      fastest, slowest: seconds of the fastest and slowest step.
      memory: peak bytes of one device. On a CPU: growth of the process divided by its devices.
    """

    step: float
    fastest: float
    slowest: float
    steps: int
    memory: int


class CompiledStep(NamedTuple):
    """A compiled step with facts about its run.

    Attributes:
      state_bytes: bytes of a checkpoint.
      latency: seconds of a small message between devices; None if not measured.
      checked: measurements on this machine; None without --check.
    """

    program: Program
    state_bytes: int
    latency: float | None
    checked: MeasuredStep | None


def program_to_json(program: Program) -> dict[str, Any]:
    """Returns the program as a tree of dicts, lists and numbers."""

    def plain(value: Any) -> Any:
        if hasattr(value, "_asdict"):
            return {name: plain(field) for name, field in value._asdict().items()}
        return [plain(item) for item in value] if isinstance(value, tuple) else value

    return plain(program)


def program_from_json(tree: dict[str, Any]) -> Program:
    """Returns the program that `program_to_json` wrote."""
    topology = dict(tree["topology"])
    topology["chip"] = Chip(**topology["chip"])
    topology["shape"], topology["wraps"] = tuple(topology["shape"]), tuple(topology["wraps"])
    fields = {
        "topology": Topology(**topology),
        "memory": Memory(**tree["memory"]),
        "collectives": tuple(Collective(**each) for each in tree["collectives"]),
        "replicated": tuple(Replicated(**each) for each in tree["replicated"]),
        "mesh": tuple((name, size) for name, size in tree["mesh"]),
    }
    return Program(**{**tree, **fields})
