"""What this machine's devices reach, measured: the rates of topologies without a datasheet."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ssl_jax import parallel
from ssl_jax.plan.program import Chip

SIDE = 768  # of the matrices
COPIES = 16
COPIED = 2**23  # float32 numbers that each device copies: beyond its caches
SUMMED = (2**4, 2**20)  # float32 numbers
SECONDS = 0.4  # of each measurement


class Rates(NamedTuple):
    """Of one device, while all of them work at once.

    Attributes:
      flops: a second, of a float32 matrix product.
      bandwidth: bytes a second, read and written, of a copy.
      link: bytes a second into a device, of a sum over all devices; 0 with one device.
      latency: seconds of a sum of a few numbers, half of it: gathered after it is scattered.
    """

    flops: float
    bandwidth: float
    link: float
    latency: float


def measure(mesh: Mesh) -> Rates:
    """Times a matrix product, a copy and sums over the mesh; some seconds."""
    devices, rows = mesh.size, parallel.rows(mesh)

    def numbers(*shape: int) -> jax.Array:
        return jax.device_put(np.ones((devices, *shape), np.float32), rows)

    def copied(x: jax.Array) -> jax.Array:  # many times: the system gives new memory slowly
        return jax.lax.fori_loop(0, COPIES, lambda _, y: y + 1, x)

    def summed(x: jax.Array) -> jax.Array:
        return jax.lax.with_sharding_constraint(x.sum(0), parallel.replicated(mesh))

    with jax.set_mesh(mesh):
        product = _seconds(lambda x: jnp.einsum("dij,djk->dik", x, x), numbers(SIDE, SIDE))
        copy = _seconds(copied, numbers(COPIED)) / COPIES
        small, large = (_seconds(summed, numbers(size)) for size in SUMMED)
    moved = 2 * 4 * (SUMMED[1] - SUMMED[0]) * (devices - 1) / devices
    link = moved / max(large - small, 1e-9) if devices > 1 else 0.0
    return Rates(2 * SIDE**3 / product, 2 * 4 * COPIED / copy, link, small / 2)


def chip_of(chip: Chip, rates: Rates) -> Chip:
    """The chip, whose every device has these rates."""
    each = chip.devices_per_chip
    return chip._replace(
        flops=rates.flops * each,
        hbm_bandwidth=rates.bandwidth * each,
        link_bandwidth=rates.link or chip.link_bandwidth,
    )


def _seconds(function: Callable[[jax.Array], Any], x: jax.Array) -> float:
    """The median of one call, compiled and once warmed."""
    call = jax.jit(function)
    jax.block_until_ready(call(x))
    times: list[float] = []
    end = time.monotonic() + SECONDS
    while time.monotonic() < end or len(times) < 3:
        start = time.perf_counter()
        jax.block_until_ready(call(x))
        times.append(time.perf_counter() - start)
    return float(np.median(times))
