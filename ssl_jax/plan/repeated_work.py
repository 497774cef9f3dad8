"""Finds work that devices repeat and examples that devices exchange.

In a correct step every device works only on its own rows: the encoder sees each example alone, so
its work divides by the number of devices. Examples meet only in the objective, as outputs of the
encoder. Parameters, their gradients and the optimizer's work are whole on every device by design.
"""

from collections.abc import Callable

from ssl_jax.plan import cost_analysis
from ssl_jax.plan.collectives import HloCollective
from ssl_jax.plan.cost_analysis import Product
from ssl_jax.plan.program import Replicated

# Multiple of the even share from which work counts as repeated. A group of devices that repeats
# work does at least 2 times the share; uneven tiles of a loss give two devices up to 1.5 times.
REPEATED = 1.9
# Fraction of the even share of all work below which an excess is ignored.
NOTABLE = 1e-3


def find_repeated_work(
    own: list[Product],
    whole: list[Product],
    devices: int,
    grows: Callable[[str], bool],
) -> tuple[Replicated, ...]:
    """Returns work that devices repeat, largest first.

    Args:
      own: products of one device's program.
      whole: products of the same step compiled for a single device.
      grows: returns True if the work of a scope grows with the batch; called only for suspects.
    """
    even = cost_analysis.total_flops(whole) / devices
    whole_flops = cost_analysis.flops_by_scope(whole)
    if cost_analysis.total_flops(own) <= (1 + NOTABLE) * even:
        # There is no excess work: an unnamed product or a new scope took its work from a scope
        # that the compiler renamed.
        own = [p for p in own if p.source and cost_analysis.scope(p) in whole_flops]
    own_flops = cost_analysis.flops_by_scope(own)
    repeated = []
    for scope, flops in own_flops.items():
        share = whole_flops.get(scope, 0.0) / devices
        if flops - share > NOTABLE * even and flops > REPEATED * share and grows(scope):
            products = [p for p in own if cost_analysis.scope(p) == scope]
            largest = max(products, key=lambda product: product.flops * product.count)
            name = cost_analysis.strip_wrappers(largest.source)
            repeated.append(Replicated(name, largest.shape, flops - share, largest.line))
    return tuple(sorted(repeated, key=lambda work: -work.flops))


def find_exchanged_examples(
    instructions: list[HloCollective], output_bytes: int
) -> tuple[Replicated, ...]:
    """Returns collectives by which the partitioner moves examples between devices, largest first.

    A collective moves examples if a device receives, from each member of its group, more bytes
    than all encoder outputs of one device's rows. Three kinds never count: sums over devices,
    collectives that `jax.shard_map` requests, and those along "fsdp" alone, which move parameters.
    In a program for several slices collectives have no names, so they cannot be judged.

    Args:
      output_bytes: bytes of the encoder's outputs for one device's rows.
    """
    exchanged = []
    for instruction in instructions:
        collective = instruction.collective
        is_sum = collective.kind in ("all-reduce", "reduce-scatter")
        if is_sum or collective.axis == "fsdp" or instruction.requested or not collective.source:
            continue
        senders = collective.group if collective.kind == "all-gather" else 1
        if collective.bytes // senders > output_bytes:
            shape = instruction.shapes[0]
            if len(instruction.shapes) > 1:
                shape = f"{len(instruction.shapes)} x {shape}"
            name = f"{collective.kind} of {collective.source}"
            moved = collective.bytes * collective.count
            exchanged.append(Replicated(name, shape, 0.0, instruction.line, moved))
    return tuple(sorted(exchanged, key=lambda work: -work.bytes))
