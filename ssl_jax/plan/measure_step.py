"""Runs the compiled step on this machine's devices, to compare a plan with measurements."""

import contextlib
import ctypes
import os
import pathlib
import threading
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from ssl_jax import build, components, parallel
from ssl_jax.errors import MISSING_INPUT, Fault
from ssl_jax.plan.program import MeasuredStep
from ssl_jax.plan.topologies import Topology

WARM_UP_STEPS = 2
STEPS = 5  # timed, after the warm-up
POLL_SECONDS = 0.002  # between two readings of the process' memory


def prepare(
    config: ConfigDict, topology: Topology, *, images: int, classes: int
) -> Callable[[], MeasuredStep]:
    """Compiles the training's step for this machine's devices.

    Returns:
      A function that runs and times the step on random images.

    Raises:
      Fault: this machine does not have the topology's devices.
    """
    mesh = local_mesh(topology, config.parallel.fsdp)
    training = build.computation(config, mesh, examples=images, classes=classes)
    batch, state = components.abstract_batch(config, mesh), training.abstract_state
    with jax.set_mesh(mesh):
        step = training.train_step.lower(state, batch).compile()

    def new_arguments() -> tuple[Any, Any]:
        return training.new_state(), random_batch(batch)

    with jax.set_mesh(mesh):
        new_arguments()  # compile now, so that measurements do not include compilation
    return lambda: measure(step, mesh, new_arguments)


def state_bytes(config: ConfigDict, *, images: int, classes: int) -> int:
    """Returns the bytes of a checkpoint: every array of the state once."""
    mesh = parallel.make_mesh(jax.devices("cpu")[:1])
    init = build.computation(config, mesh, examples=images, classes=classes).init
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(jax.eval_shape(init)))


def local_mesh(topology: Topology, fsdp: int) -> Mesh:
    """Returns a mesh of this machine's devices in the topology's layout.

    Raises:
      Fault: this machine has too few devices or devices of another kind.
    """
    platform = "gpu" if topology.chip.kind == "gpu" else "cpu"
    devices = [d for d in jax.devices() if d.platform == platform]
    if topology.chip.kind == "tpu" or len(devices) < topology.devices:
        available = f"{len(devices)} {platform} devices" if devices else f"no {platform} device"
        message = f"--check needs the devices of {topology.name} on this machine, which has "
        raise Fault(message + available, MISSING_INPUT)
    return parallel.make_mesh(devices[: topology.devices], fsdp=fsdp)


def measure(step: Any, mesh: Mesh, new_arguments: Callable[[], tuple[Any, Any]]) -> MeasuredStep:
    """Times a compiled step.

    Args:
      step: (state, batch) -> (state, metrics); donates its state.
      new_arguments: makes a state and a batch.
    """
    with jax.set_mesh(mesh), PeakMemory() as peak:
        state, batch = new_arguments()
        for _ in range(WARM_UP_STEPS):
            state, metrics = step(state, batch)
            jax.block_until_ready(metrics)
        times = []
        for _ in range(STEPS):
            start = time.perf_counter()
            state, metrics = step(state, batch)
            jax.block_until_ready((state, metrics))
            times.append(time.perf_counter() - start)
    stats = mesh.devices.flat[0].memory_stats()
    memory = stats["peak_bytes_in_use"] if stats else peak.growth // mesh.size
    return MeasuredStep(float(np.median(times)), min(times), max(times), STEPS, memory)


def random_batch(batch: dict[str, jax.ShapeDtypeStruct]) -> dict[str, jax.Array]:
    """Returns random arrays of the shapes of `components.abstract_batch`; labels are 0."""
    random = np.random.default_rng(0)

    def array(like: jax.ShapeDtypeStruct) -> jax.Array:
        values: np.ndarray
        if np.issubdtype(like.dtype, np.floating):
            values = random.random(like.shape, np.float32)
        else:  # labels are all 0
            upper = 256 if like.dtype == np.uint8 else 1
            values = random.integers(0, upper, like.shape, like.dtype)
        return jax.device_put(values, like.sharding)

    return jax.tree.map(array, batch)


class PeakMemory:
    """Context manager that records the growth of the process' resident memory.

    Attributes:
      growth: largest growth in bytes since entry; 0 on systems other than Linux.
    """

    def __init__(self) -> None:
        self.growth = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "PeakMemory":
        # Return memory that the compiler freed; otherwise the step reuses it and its growth is
        # measured too small.
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
        self._before = _resident_bytes()
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            self.growth = max(self.growth, _resident_bytes() - self._before)


def _resident_bytes() -> int:
    file = pathlib.Path("/proc/self/statm")
    return int(file.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if file.exists() else 0
