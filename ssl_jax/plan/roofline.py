"""Roofline model: predicts the seconds of a compiled step and what limits them.

A step computes, moves memory and communicates. Two bounds enclose the prediction. `fastest`
assumes data-sheet rates and full overlap. `slowest` assumes the rates that programs reach and no
overlap. The prediction assumes that computing and memory traffic overlap, as tiles of one program
do, and that collectives wait for both, as sums of BatchNorm and of gradients do.
"""

from typing import NamedTuple

from ssl_jax.plan import collective_time
from ssl_jax.plan.program import Collective, Program


class Efficiency(NamedTuple):
    """Fractions of the data-sheet rates that programs reach.

    Attributes:
      reason: evidence for these fractions, printed with the plan.
    """

    compute: float
    hbm: float
    reason: str


EFFICIENCY = {
    "tpu": Efficiency(
        0.6,
        0.8,
        "compute: published training programs reach 35-65 % (MaxText); HBM: Flax's ResNet-50 on "
        "v3 reaches 1,010 of the 1,240 images/s that 364 MB per image allow",
    ),
    "gpu": Efficiency(
        0.5,
        0.8,
        "compute: convolutions reach 500 of 990 TFLOP/s on an H200, large matrix products 780; "
        "HBM: as on TPU, and copies on an H200 reach 4.3 of 4.8 TB/s",
    ),
    "cpu": Efficiency(
        0.3,
        1.0,
        "compute: 0.3 of the rate of a matrix product measured just before; the convolutions of "
        "narrow ResNets reached 0.24 and 0.36 of it in two checks; memory: the rate of a copy "
        "measured just before",
    ),
}


class Resources(NamedTuple):
    """Common names of the resources that a step uses.

    Attributes:
      inside: links inside a slice or host.
      between: network between slices or hosts.
    """

    compute: str
    memory: str
    inside: str
    between: str


RESOURCES = {
    "tpu": Resources("compute", "HBM", "ICI", "DCN"),
    "gpu": Resources("compute", "HBM", "NVLink", "network"),
    "cpu": Resources("compute", "memory", "exchange", "network"),
}


class TimedCollective(NamedTuple):
    """A collective with the seconds of all its executions in one step.

    Attributes:
      inside: seconds on links inside a slice or host.
      between: seconds on the network between slices or hosts.
    """

    collective: Collective
    inside: float
    between: float

    @property
    def seconds(self) -> float:
        """Seconds of both parts, one after the other."""
        return self.inside + self.between


class Forecast(NamedTuple):
    """Predicted times of a step in seconds, equal on every device.

    Attributes:
      program: the compiled step.
      efficiency: assumed fractions of the data-sheet rates.
      compute: time of the FLOPs at the assumed rate; `compute_bound` at the data-sheet rate.
      hbm: time of the memory traffic at the assumed rate; `hbm_bound` at the data-sheet rate.
      collectives: collectives, longest first.
      inside: time on links inside slices or hosts.
      between: time on the network between slices or hosts.
      fastest, step, slowest: lower bound, prediction, upper bound.
      binds: name of the resource in `resources` that takes longest at the assumed rates.
      images_per_second: images/s of the whole topology; `images_per_chip` of one chip.
      mfu: model FLOPs utilisation: FLOPs divided by those that the data sheet allows in `step`.
      hbm_share: memory traffic divided by the traffic that the data sheet allows in `step`.
    """

    program: Program
    efficiency: Efficiency
    compute: float
    compute_bound: float
    hbm: float
    hbm_bound: float
    collectives: tuple[TimedCollective, ...]
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
        """Names of the resources on these chips."""
        return RESOURCES[self.program.topology.chip.kind]


def forecast(
    program: Program,
    efficiency: Efficiency | None = None,
    latency: collective_time.Latency | None = None,
) -> Forecast:
    """Predicts the time of a step.

    Args:
      efficiency, latency: default to the values of the chip's kind.
    """
    topology, chip = program.topology, program.topology.chip
    reached = efficiency or EFFICIENCY[chip.kind]
    compute_bound = program.flops * chip.devices_per_chip / chip.flops
    hbm_bound = program.bytes * chip.devices_per_chip / chip.hbm_bandwidth
    compute, hbm = compute_bound / reached.compute, hbm_bound / reached.hbm
    timed = [
        TimedCollective(collective, *collective_time.seconds(collective, topology, latency))
        for collective in program.collectives
    ]
    inside, between = sum(t.inside for t in timed), sum(t.between for t in timed)
    step = max(compute, hbm) + inside + between
    rate = program.global_batch / step if step else 0.0  # step is 0 if the compiler refused it
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
