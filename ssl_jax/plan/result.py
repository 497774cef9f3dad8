"""A plan: everything that is told of one training on one topology, and its verdict."""

from typing import Any, NamedTuple

from ssl_jax.errors import OUT_OF_MEMORY, REPLICATED_WORK
from ssl_jax.parallel.sizes import Size
from ssl_jax.plan import formatting
from ssl_jax.plan.compile_in_subprocess import Checked
from ssl_jax.plan.compiled import Checked
from ssl_jax.plan.facts import Program, Replicated
from ssl_jax.plan.input_throughput import Need, Speed
from ssl_jax.plan.inputs import Need, Speed
from ssl_jax.plan.model import Forecast, Timed
from ssl_jax.plan.program import Program, Replicated
from ssl_jax.plan.roofline import Forecast, Timed
from ssl_jax.plan.run_totals import Totals
from ssl_jax.plan.totals import Totals


class Plan(NamedTuple):
    """One training on one topology.

    Attributes:
      name: of the training, e.g. "simclr resnet50, batch 4,096".
      command: that made the plan.
      forecast: memory, work and time of a step.
      totals: of the run.
      sizes: of the config, that have to divide.
      placement: where colours are augmented, "host" or "device".
      speed: of this machine's pipeline; None where it was not measured.
      need: of every host; None likewise.
      checked: what the step took here; None where it was not run.
    """

    name: str
    command: str
    forecast: Forecast
    totals: Totals
    sizes: tuple[Size, ...]
    placement: str
    speed: Speed | None
    need: Need | None
    checked: Checked | None

    @property
    def program(self) -> Program:
        """What was compiled."""
        return self.forecast.program


class Verdict(NamedTuple):
    """What the plan says, in a sentence, and the exit code of the command."""

    code: int
    sentence: str


def verdict(program: Program) -> Verdict:
    """Whether the training fits, and whether every device does its own share alone."""
    memory, topology = program.memory, program.topology
    need, limit = formatting.size(memory.total), formatting.size(memory.limit)
    if program.out_of_memory or memory.headroom < 0:
        return Verdict(
            OUT_OF_MEMORY,
            f"DOES NOT FIT: {need} needed on each device of {topology.name}, which has {limit}. "
            "Use more devices, a smaller train.batch_size, train.microbatch or parallel.fsdp",
        )
    if program.replicated:
        worst = max(program.replicated, key=lambda one: (one.flops, one.bytes))
        what = "devices repeat work that should be divided"
        if not worst.flops:
            what = "devices exchange examples that should stay where they are"
        return Verdict(
            REPLICATED_WORK,
            f"REPLICATED: {what}. Each does {formatting.operations(program.flops)} where an even split "
            f"is {formatting.operations(program.even_flops)}; most by {described(worst)}",
        )
    share = formatting.percent(memory.total / memory.limit)
    return Verdict(0, f"FITS: {need} of {limit} on each device, {share}")


def described(work: Replicated) -> str:
    """ "encoder/conv bf16[8192,112,112,64] (+1.2 TFLOP, step.py:210)"."""
    facts = [f"+{formatting.operations(work.flops)}"] if work.flops else []
    facts += [f"{formatting.size(work.bytes)} from others"] if work.bytes else []
    facts += [work.source] if work.source else []
    return f"{work.name} {work.shape} ({', '.join(facts)})"


def plain(value: Any) -> Any:
    """The same in dicts and lists, for JSON; collectives flat."""
    if isinstance(value, Timed):
        return plain(value.collective) | {"seconds": value.seconds}
    if hasattr(value, "_asdict"):
        return {name: plain(item) for name, item in value._asdict().items()}
    if isinstance(value, dict):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
