"""Published figures of the chips that a run can be planned for.

Sources: [s] "How to Scale Your Model" (Austin et al. 2025), chapter 2; [g] Google Cloud's page of
each TPU version; [j] Jouppi et al., "A domain-specific supercomputer for training deep neural
networks" (CACM 63(7), 2020), table 3; [n] NVIDIA's data sheets; [c] measured: the memory that
libtpu 0.0.52 reports as available when a program needs more; it is less than the chip's nominal
memory.
"""

import os
from typing import NamedTuple

GIB = 2**30
HOST_NETWORK = 25e9  # bytes/s: a network card of 200 Gbit/s


class Chip(NamedTuple):
    """Accelerator as it is sold.

    Attributes:
      kind: "tpu", "gpu" or "cpu".
      hbm_bytes: memory of the chip in bytes.
      hbm_bandwidth: bytes/s of the chip.
      flops: bfloat16 FLOP/s of the chip, by its data sheet.
      link_bandwidth: bytes/s one way: of one ICI link, or of all NVLinks of a GPU together.
      axes: axes of the torus of ICI links; 0 where every chip reaches every other directly.
      dcn_bandwidth: bytes/s one way of a host's network.
      chips_per_host: chips attached to one host.
      devices_per_chip: devices that JAX counts per chip: 2 on v2 and v3 (one per core), else 1.
    """

    name: str
    kind: str
    hbm_bytes: int
    hbm_bandwidth: float
    flops: float
    link_bandwidth: float
    axes: int
    dcn_bandwidth: float
    chips_per_host: int
    devices_per_chip: int = 1


def _tpu(
    name: str,
    gib: float,
    bandwidth: float,
    flops: float,
    link: float,
    axes: int,
    *,
    host: float = HOST_NETWORK,
    cores: int = 1,
) -> Chip:
    """Returns a TPU chip; four share a host.

    Args:
      gib: GiB available to one device [c].
      host: bytes/s of the host's network.
    """
    memory = round(gib * GIB) * cores
    return Chip(name, "tpu", memory, bandwidth, flops, link, axes, host, 4, cores)


def _gpu(name: str, gib: float, bandwidth: float, flops: float, nvlink: float, card: float) -> Chip:
    """Returns a GPU; eight share a host, each with its own network card.

    Args:
      nvlink: bytes/s one way of all NVLinks of the GPU.
      card: bytes/s one way of the network card.
    """
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


def cpu_chip(devices: int) -> Chip:
    """Returns one of `devices` virtual devices of this machine.

    Its rates are rough guesses; `device_rates` replaces them by measured ones.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // devices
    return Chip("cpu", "cpu", memory, 2e10 / devices, 1e11 / devices, 1e10, 0, 1e9, devices)
