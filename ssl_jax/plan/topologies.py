"""Topologies by name: "v5e:16x16", "h100:8x32" (8 GPUs on each of 32 hosts), "cpu:8"."""

import difflib
import itertools
import math
import re
from typing import Any, NamedTuple

from ssl_jax.errors import MISSING_INPUT, USAGE, Fault
from ssl_jax.plan import chips
from ssl_jax.plan.chips import Chip

# Slices that are sold, in chips along each axis (cloud.google.com/tpu/docs, each version's page).
_SQUARES = ("2x2", "4x4", "4x8", "8x8", "8x16", "16x16")
# v4 and v5p; larger slices are every a x b x c of multiples of four with a <= b <= c.
_CUBES = ("2x2x1", "2x2x2", "2x2x4", "2x4x4")
SHAPES = {
    "v2": _SQUARES,
    "v3": (*_SQUARES, "16x32", "32x32"),
    "v5e": ("1x1", "2x2", "2x4", *_SQUARES[1:]),
    "v6e": ("1x1", "2x2", "2x4", *_SQUARES[1:]),
}
LARGEST = {"v4": 4096, "v5p": 6144}  # chips of a slice
RING = {"v2": 16, "v3": 32, "v5e": 16, "v6e": 16}  # chips along an axis that closes to a ring
EXAMPLES = "v5e:16x16, v4:4x4x4, v3:4x4, v5p:4x4x4, v6e:16x16, h100:8x32, h200:8x1, a100:8x4, cpu:8"
# A v4 chip has two cores that work as one device; libtpu plans for two devices without this option.
OPTIONS = {"v4": {"chip_config_name": "megacore"}}


class Topology(NamedTuple):
    """Chips that are rented together.

    Attributes:
      name: the requested name: "v5e:16x16".
      shape: chips along the axes of one slice; for GPUs (GPUs per host, hosts).
      devices: JAX devices of all slices.
      hosts: hosts of all slices.
      wraps: per axis, True if its links close to a ring.
    """

    name: str
    chip: Chip
    shape: tuple[int, ...]
    slices: int
    devices: int
    hosts: int
    wraps: tuple[bool, ...]

    @property
    def chips(self) -> int:
        """Number of chips of all slices."""
        return self.devices // self.chip.devices_per_chip


def parse(name: str, *, slices: int = 1) -> Topology:
    """Returns the topology of a name.

    Args:
      slices: number of slices, joined by the data-centre network; TPUs only.

    Raises:
      Fault: there is no such chip or shape. The message names near ones that exist.
    """
    kind, _, text = name.partition(":")
    if kind not in (*chips.CHIPS, "cpu"):
        near = difflib.get_close_matches(kind, [*chips.CHIPS, "cpu"], n=2, cutoff=0.4)
        suggestion = f"did you mean {' or '.join(near)}? " if near else ""
        raise _fault(name, f"no chip {kind!r}; {suggestion}Examples: {EXAMPLES}")
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", text):
        raise _fault(name, f"write sizes after the chip, as in {EXAMPLES}")
    shape = tuple(int(size) for size in text.split("x"))
    if slices < 1:
        raise Fault(f"--slices={slices}: must be at least 1", USAGE)
    if kind == "cpu":
        return _without_slices(name, chips.cpu_chip(math.prod(shape)), shape, 1, slices)
    if chips.CHIPS[kind].kind == "gpu":
        if len(shape) != 2 or shape[0] > chips.CHIPS[kind].chips_per_host:
            examples = f"{kind}:8x1 or {kind}:8x32"
            raise _fault(name, f"write GPUs per host x hosts, for example {examples}")
        return _without_slices(name, chips.CHIPS[kind], shape, shape[1], slices)
    return _tpu(name, chips.CHIPS[kind], shape, slices)


def _fault(name: str, message: str) -> Fault:
    return Fault(f"--topology={name}: {message}", USAGE)


def _without_slices(
    name: str, chip: Chip, shape: tuple[int, ...], hosts: int, slices: int
) -> Topology:
    if slices > 1:
        raise Fault(f"--slices={slices}: only TPUs have slices, not {name}", USAGE)
    return Topology(name, chip, shape, 1, math.prod(shape), hosts, (False,) * len(shape))


def _tpu(name: str, chip: Chip, shape: tuple[int, ...], slices: int) -> Topology:
    if not _is_sold(chip.name, shape):
        nearest = ", ".join(_nearest(chip.name, shape))
        raise _fault(name, f"there is no such slice; the nearest ones are {nearest}")
    size = math.prod(shape)
    if chip.name in RING:
        wraps = tuple(axis == RING[chip.name] for axis in shape)
    else:  # cubes of 4 x 4 x 4 are joined by switches, which also close the rings
        wraps = (size >= 64,) * 3
    # The small slices of v5e and v6e are parts of one host of eight.
    hosts = 1 if size <= 8 and chip.name in ("v5e", "v6e") else math.ceil(size / 4)
    devices = size * chip.devices_per_chip
    return Topology(name, chip, shape, slices, devices * slices, hosts * slices, wraps)


def _is_sold(chip: str, shape: tuple[int, ...]) -> bool:
    text = "x".join(map(str, shape))
    if chip in SHAPES:
        return text in SHAPES[chip]
    cubes = len(shape) == 3 and sorted(shape) == list(shape) and not any(n % 4 for n in shape)
    return text in _CUBES or (cubes and math.prod(shape) <= LARGEST[chip])


def _nearest(chip: str, shape: tuple[int, ...]) -> list[str]:
    """Returns the names of the four slices that are nearest in size."""
    shapes = SHAPES.get(chip)
    if shapes is None:
        axes = itertools.combinations_with_replacement(range(4, 28, 4), 3)
        shapes = (*_CUBES, *("x".join(map(str, axis)) for axis in axes if _is_sold(chip, axis)))
    size = math.prod(shape)

    def distance(text: str) -> float:
        return abs(math.log(math.prod(map(int, text.split("x"))) / size))

    return [f"{chip}:{text}" for text in sorted(shapes, key=distance)[:4]]


def compile_devices(topology: Topology) -> list[Any]:
    """Returns the devices to compile for: described TPU devices, else this machine's CPU devices.

    Raises:
      Fault: libtpu is not installed or refuses the topology; or there are too few virtual devices.
    """
    import jax
    from jax.experimental import topologies

    if topology.chip.kind != "tpu":
        devices = jax.devices("cpu")
        if len(devices) < topology.devices:
            raise Fault(
                f"{topology.name} needs {topology.devices} virtual devices; set "
                f"JAX_NUM_CPU_DEVICES={topology.devices}",
                USAGE,
            )
        return devices[: topology.devices]
    options: dict[str, Any] = dict(OPTIONS.get(topology.chip.name, {}))
    if topology.slices > 1:
        options["num_slices"] = topology.slices
    try:
        return list(topologies.get_topology_desc(topology.name, "tpu", **options).devices)
    except (RuntimeError, ImportError, NotImplementedError) as error:
        if "INVALID_ARGUMENT" in str(error):
            raise _fault(topology.name, f"the compiler refuses it: {error}") from error
        raise Fault(
            f"--topology={topology.name}: no compiler for TPUs; run pip install libtpu ({error})",
            MISSING_INPUT,
        ) from error
