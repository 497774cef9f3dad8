"""The plan of one training on one topology, and its verdict."""

from typing import Any, NamedTuple

from ssl_jax.errors import OUT_OF_MEMORY, REPLICATED_WORK
from ssl_jax.parallel.sizes import Size
from ssl_jax.plan import formatting
from ssl_jax.plan.input_throughput import CpuThroughput, HostLoad
from ssl_jax.plan.program import MeasuredStep, Program, Replicated
from ssl_jax.plan.roofline import Forecast, TimedCollective
from ssl_jax.plan.run_totals import Totals


class Plan(NamedTuple):
    """Plan of one training on one topology; the field names are the keys of plan.json.

    Attributes:
      name: the training, for example "simclr resnet50, batch 4,096".
      command: command that made the plan.
      forecast: memory, work and time of a step.
      totals: totals of the run.
      sizes: sizes of the config that must divide.
      placement: `augment.placement`: colour augmentation on the "host" or the "device";
        "" if the modality has no such field.
      speed: throughput of this machine's input pipeline; None if not measured.
      need: input work of every host; None if not measured.
      checked: measurements of the step on this machine; None without --check.
      noun: word for one example.
    """

    name: str
    command: str
    forecast: Forecast
    totals: Totals
    sizes: tuple[Size, ...]
    placement: str
    speed: CpuThroughput | None
    need: HostLoad | None
    checked: MeasuredStep | None
    noun: str = "image"

    @property
    def program(self) -> Program:
        """The compiled step."""
        return self.forecast.program


class Verdict(NamedTuple):
    """Result of a plan: exit code of the command, and a sentence."""

    code: int
    sentence: str


def verdict(program: Program) -> Verdict:
    """Judges if the training fits and if every device works only on its own share."""
    memory, topology = program.memory, program.topology
    need, limit = formatting.size(memory.total), formatting.size(memory.limit)
    if program.out_of_memory or memory.headroom < 0:
        return Verdict(
            OUT_OF_MEMORY,
            f"DOES NOT FIT: {need} needed on each device of {topology.name}, which has {limit}. "
            "Use more devices, a smaller train.batch_size, train.microbatch or parallel.fsdp",
        )
    if program.replicated:
        worst = max(program.replicated, key=lambda work: (work.flops, work.bytes))
        problem = "devices repeat work that they should divide"
        if not worst.flops:
            problem = "devices exchange examples that should stay on their devices"
        own, even = formatting.flops(program.flops), formatting.flops(program.even_flops)
        return Verdict(
            REPLICATED_WORK,
            f"REPLICATED: {problem}. Each does {own} where an even share is {even}; "
            f"the largest cause is {describe_replicated(worst)}",
        )
    share = formatting.percent(memory.total / memory.limit)
    return Verdict(0, f"FITS: {need} of {limit} on each device, {share}")


def describe_replicated(work: Replicated) -> str:
    """Describes work as in "encoder/conv bf16[8192,112,112,64] (+1.2 TFLOP, step.py:210)"."""
    details = [f"+{formatting.flops(work.flops)}"] if work.flops else []
    details += [f"{formatting.size(work.bytes)} from others"] if work.bytes else []
    details += [work.source] if work.source else []
    return f"{work.name or 'an unnamed operation'} {work.shape} ({', '.join(details)})"


def to_plain(value: Any) -> Any:
    """Converts named tuples to dicts and tuples to lists, for JSON; flattens timed collectives."""
    if isinstance(value, TimedCollective):
        return to_plain(value.collective) | {"seconds": value.seconds}
    if hasattr(value, "_asdict"):
        return {name: to_plain(item) for name, item in value._asdict().items()}
    if isinstance(value, dict):
        return {str(name): to_plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    return value
