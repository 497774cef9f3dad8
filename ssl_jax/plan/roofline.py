"""The roofline: from a compiled step to its seconds, and what they are spent on.

A step computes, moves memory, and talks. The bounds: everything at once and at the datasheet's
rates (`fastest`); one after the other at the rates that programs reach (`slowest`). The prediction
lies between: computing and memory overlap, as tiles of one program do, and the network waits for
both, as sums of BatchNorm and of gradients do.
"""

from typing import NamedTuple

from ssl_jax.plan import collective_time
from ssl_jax.plan.program import Collective, Program


class Efficiency(NamedTuple):
    """Fractions of the datasheet's rates that programs reach, and why we say so."""

    compute: float
    hbm: float
    reason: str


EFFICIENCY = {
    "tpu": Efficiency(
        0.6,
        0.8,
        "compute: published training programs reach 35-65 % (MaxText); HBM: Flax's ResNet-50 on "
        "v3 reaches 1,010 of the 1,240 images/s that its bytes allow",
    ),
    "gpu": Efficiency(
        0.5,
        0.8,
        "compute: convolutions of 500 of 990 TFLOP/s on an H200, whose large matrix products "
        "reach 780; HBM: as on TPU, where copies on an H200 reach 4.3 of 4.8 TB/s",
    ),
    "cpu": Efficiency(
        0.3,
        1.0,
        "of the rates of a matrix product and a copy, measured here just before; narrow ResNets' "
        "convolutions came to 0.24 and 0.36 of the former in two checks, from which 0.3 is taken",
    ),
}


class Resources(NamedTuple):
    """What a step spends its time on, as people call it."""

    compute: str
    memory: str
    inside: str  # links of a slice or host
    between: str  # the network between them


RESOURCES = {
    "tpu": Resources("compute", "HBM", "ICI", "DCN"),
    "gpu": Resources("compute", "HBM", "NVLink", "network"),
    "cpu": Resources("compute", "memory", "exchange", "network"),
}


class Timed(NamedTuple):
    """A collective, with its seconds in one step, of all its executions.

    Attributes:
      inside: on links inside a slice or host.
      between: on the network between them.
    """

    collective: Collective
    inside: float
    between: float

    @property
    def seconds(self) -> float:
        """Both, one after the other."""
        return self.inside + self.between


class Forecast(NamedTuple):
    """What a step takes, in seconds, on every device alike.

    Attributes:
      program: what was compiled.
      efficiency: what is assumed.
      compute: FLOPs at the rate that is reached; `compute_bound` at the datasheet's.
      hbm: bytes likewise; `hbm_bound` at the datasheet's.
      collectives: the longest first.
      inside, between: network time by links: of slices or hosts, and between them.
      fastest, step, slowest: bound, prediction, bound.
      binds: of `resources`, what takes longest at the rates that are reached.
      images_per_second: of the whole topology; `images_per_chip` of one chip.
      mfu: FLOPs over what the datasheet allows in the predicted time; `hbm_share` bytes likewise.
    """

    program: Program
    efficiency: Efficiency
    compute: float
    compute_bound: float
    hbm: float
    hbm_bound: float
    collectives: tuple[Timed, ...]
    inside: float
    between: float
    fastest: float
    step: float
    slowest: float
    binds: str
    images_per_second: float
    images_per_chip: float
    mfu: float
    hbm_share: float

    @property
    def resources(self) -> Resources:
        """Their names on these chips."""
        return RESOURCES[self.program.topology.chip.kind]


def forecast(
    program: Program,
    efficiency: Efficiency | None = None,
    latency: collective_time.Latency | None = None,
) -> Forecast:
    """Predicts a step's time; the default rates are those of the chip's kind."""
    topology, chip = program.topology, program.topology.chip
    reached = efficiency or EFFICIENCY[chip.kind]
    compute_bound = program.flops * chip.devices_per_chip / chip.flops
    hbm_bound = program.bytes * chip.devices_per_chip / chip.hbm_bandwidth
    compute, hbm = compute_bound / reached.compute, hbm_bound / reached.hbm
    timed = [Timed(c, *collective_time.seconds(c, topology, latency)) for c in program.collectives]
    inside, between = sum(t.inside for t in timed), sum(t.between for t in timed)
    step = max(compute, hbm) + inside + between
    rate = program.global_batch / step if step else 0.0  # 0 where the compiler refused
    parts = zip((compute, hbm, inside, between), RESOURCES[chip.kind], strict=True)
    return Forecast(
        program=program,
        efficiency=reached,
        compute=compute,
        compute_bound=compute_bound,
        hbm=hbm,
        hbm_bound=hbm_bound,
        collectives=tuple(sorted(timed, key=lambda t: -t.seconds)),
        inside=inside,
        between=between,
        fastest=max(compute_bound, hbm_bound, inside, between),
        step=step,
        slowest=compute + hbm + inside + between,
        binds=max(parts)[1],
        images_per_second=rate,
        images_per_chip=rate / topology.chips,
        mfu=compute_bound / step if step else 0.0,
        hbm_share=hbm_bound / step if step else 0.0,
    )
