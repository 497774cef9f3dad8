"""The chips that a run may be planned for, by their makers' figures.

Sources: [s] "How to Scale Your Model" (Austin et al. 2025), chapter 2; [g] Google Cloud's page of
each TPU version; [j] Jouppi et al., "A domain-specific supercomputer for training deep neural
networks" (CACM 63(7), 2020), table 3; [n] NVIDIA's data sheets; [c] measured: what libtpu 0.0.52
says is available when a program needs more, which is less than is sold.
"""

import os

from ssl_jax.plan.program import Chip

GIB = 2**30
HOST = 25e9  # bytes/s: a network card of 200 Gbit/s


def _tpu(
    name: str,
    gib: float,
    bandwidth: float,
    flops: float,
    link: float,
    axes: int,
    *,
    host: float = HOST,
    cores: int = 1,
) -> Chip:
    """A TPU chip, four to a host. Args: gib available to one device [c]; host: its network."""
    memory = round(gib * GIB) * cores
    return Chip(name, "tpu", memory, bandwidth, flops, link, axes, host, 4, cores)


def _gpu(name: str, gib: float, bandwidth: float, flops: float, nvlink: float, card: float) -> Chip:
    """A GPU, eight to a host, each with a network card of its own. Args: nvlink, card: one way."""
    return Chip(name, "gpu", round(gib * GIB), bandwidth, flops, nvlink, 0, 8 * card, 8)


CHIPS = {
    chip.name: chip
    for chip in (
        _tpu("v2", 7.48, 0.7e12, 46e12, 62e9, 2, cores=2),  # [g]; links [j]
        _tpu("v3", 15.48, 0.9e12, 123e12, 82e9, 2, cores=2),  # [g]; links [j]; [s] says 140e12
        _tpu("v4", 30.75, 1.2e12, 275e12, 45e9, 3),  # [s]
        _tpu("v5e", 15.75, 0.81e12, 197e12, 45e9, 2, host=12.5e9),  # [s]
        _tpu("v5p", 95.73, 2.8e12, 459e12, 90e9, 3),  # [s]
        _tpu("v6e", 31.24, 1.6e12, 918e12, 90e9, 2, host=50e9),  # [s], [g]
        _gpu("a100", 79.2, 2.04e12, 312e12, 300e9, 25e9),  # [n], 80 GB SXM
        _gpu("h100", 79.2, 3.35e12, 989e12, 450e9, 50e9),  # [n], SXM
        _gpu("h200", 139.8, 4.8e12, 989e12, 450e9, 50e9),  # [n], SXM
    )
}


def cpu(devices: int) -> Chip:
    """One of `devices` virtual devices of this machine; its rates are rough, to be measured."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // devices
    return Chip("cpu", "cpu", memory, 2e10 / devices, 1e11 / devices, 1e10, 0, 1e9, devices)
