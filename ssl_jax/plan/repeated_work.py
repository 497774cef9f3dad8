"""Whether every device keeps to its own rows: work that is repeated, examples that travel.

What this program's devices do not have to do is known: the encoder sees each example by itself, so
its work divides by the devices; examples meet in the objective alone, as outputs of the encoder.
Parameters, their gradients and what the optimizer does are whole on every device by design.
"""

from collections.abc import Callable

from ssl_jax.plan import cost_analysis
from ssl_jax.plan.collectives import Exchange
from ssl_jax.plan.cost_analysis import Product
from ssl_jax.plan.program import Replicated

# Times the even share. Work repeated by a group of devices is done twice at least; the tiles of a
# loss that do not divide evenly make 1.5 of two devices' share.
REPEATED = 1.9
# Of the even share of all work: below, it is no concern.
NOTABLE = 1e-3


def repeated(
    own: list[Product],
    whole: list[Product],
    devices: int,
    grows: Callable[[str], bool],
) -> tuple[Replicated, ...]:
    """Work that devices repeat, the most first.

    Args:
      own: of one device's program.
      whole: of the same step for one device.
      grows: whether the work of a scope grows with the batch; asked of suspects alone.
    """
    even = cost_analysis.total(whole) / devices
    mine, all_of_it = cost_analysis.by_scope(own), cost_analysis.by_scope(whole)
    if cost_analysis.total(own) <= (1 + NOTABLE) * even:
        # No more work than there should be: a scope that is new has it from another one's.
        mine = {scope: flops for scope, flops in mine.items() if scope in all_of_it}
    found = []
    for scope, flops in mine.items():
        share = all_of_it.get(scope, 0.0) / devices
        if flops - share > NOTABLE * even and flops > REPEATED * share and grows(scope):
            products = [p for p in own if cost_analysis.scope(p) == scope]
            largest = max(products, key=lambda product: product.flops * product.count)
            name = cost_analysis.plain(largest.source)
            found.append(Replicated(name, largest.shape, flops - share, largest.line))
    return tuple(sorted(found, key=lambda one: -one.flops))


def exchanged(found: list[Exchange], output_bytes: int) -> tuple[Replicated, ...]:
    """Examples that the partitioner makes travel, the most first.

    An exchange is one of examples if it brings a device, from each of its group, more than all
    outputs of the encoder for one device's rows. Sums over devices are none, nor are exchanges
    that `jax.shard_map` asks for, nor those along "fsdp" alone, which are of parameters. In a
    program for several slices exchanges have lost their names and cannot be judged.

    Args:
      output_bytes: of the encoder's outputs for one device's rows.
    """
    travelling = []
    for exchange in found:
        fact = exchange.fact
        allowed = fact.kind in ("all-reduce", "reduce-scatter") or fact.axis == "fsdp"
        if allowed or exchange.by_hand or not fact.source:
            continue
        of_each = fact.bytes // (fact.group if fact.kind == "all-gather" else 1)
        if of_each > output_bytes:
            shape = exchange.shapes[0]
            if len(exchange.shapes) > 1:
                shape = f"{len(exchange.shapes)} x {shape}"
            moved = fact.bytes * fact.count
            travelling.append(
                Replicated(f"{fact.kind} of {fact.source}", shape, 0.0, exchange.line, moved)
            )
    return tuple(sorted(travelling, key=lambda one: -one.bytes))
