"""Measures compute, memory and link rates of this machine's devices, which have no data sheet."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ssl_jax import parallel
from ssl_jax.plan.chips import Chip

MATRIX_SIZE = 768  # rows and columns of the multiplied matrices
COPIES = 16
COPIED = 2**23  # float32 numbers that each device copies; more than its caches hold
SUMMED = (2**4, 2**20)  # float32 numbers of the small and the large sum
SECONDS = 0.4  # of each measurement


class Rates(NamedTuple):
    """Rates of one device while all devices work at once.

    Attributes:
      flops: FLOP/s of a float32 matrix product.
      bandwidth: bytes/s read and written by a copy.
      link: bytes/s into a device in a sum over all devices; 0 with one device.
      latency: seconds of one phase of a sum of a few numbers. A sum has two phases, scatter and
        gather.
    """

    flops: float
    bandwidth: float
    link: float
    latency: float


def measure(mesh: Mesh) -> Rates:
    """Times a matrix product, a copy and sums over the mesh; takes some seconds."""
    devices, rows = mesh.size, parallel.rows(mesh)

    def ones(*shape: int) -> jax.Array:
        return jax.device_put(np.ones((devices, *shape), np.float32), rows)

    def copy(x: jax.Array) -> jax.Array:  # repeated, because the system hands out new memory slowly
        return jax.lax.fori_loop(0, COPIES, lambda _, y: y + 1, x)

    def sum_over_devices(x: jax.Array) -> jax.Array:
        return jax.lax.with_sharding_constraint(x.sum(0), parallel.replicated(mesh))

    with jax.set_mesh(mesh):
        product_seconds = _seconds(
            lambda x: jnp.einsum("dij,djk->dik", x, x), ones(MATRIX_SIZE, MATRIX_SIZE)
        )
        copy_seconds = _seconds(copy, ones(COPIED)) / COPIES
        small, large = (_seconds(sum_over_devices, ones(size)) for size in SUMMED)
    moved = 2 * 4 * (SUMMED[1] - SUMMED[0]) * (devices - 1) / devices
    return Rates(
        flops=2 * MATRIX_SIZE**3 / product_seconds,
        bandwidth=2 * 4 * COPIED / copy_seconds,
        link=moved / max(large - small, 1e-9) if devices > 1 else 0.0,
        latency=small / 2,
    )


def with_rates(chip: Chip, rates: Rates) -> Chip:
    """Returns the chip with these rates for each of its devices."""
    devices = chip.devices_per_chip
    return chip._replace(
        flops=rates.flops * devices,
        hbm_bandwidth=rates.bandwidth * devices,
        link_bandwidth=rates.link or chip.link_bandwidth,
    )


def _seconds(function: Callable[[jax.Array], Any], x: jax.Array) -> float:
    """Returns the median seconds of one call, after compilation and one warm-up call."""
    call = jax.jit(function)
    jax.block_until_ready(call(x))
    times: list[float] = []
    end = time.monotonic() + SECONDS
    while time.monotonic() < end or len(times) < 3:
        start = time.perf_counter()
        jax.block_until_ready(call(x))
        times.append(time.perf_counter() - start)
    return float(np.median(times))
