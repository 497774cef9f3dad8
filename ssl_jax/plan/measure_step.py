"""The prediction beside the truth: the compiled step, run on this machine's own devices."""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from ssl_jax import build, parallel
from ssl_jax.errors import MISSING_INPUT, Fault
from ssl_jax.plan import resident
from ssl_jax.plan.compile_in_subprocess import Checked
from ssl_jax.plan.compiled import Checked
from ssl_jax.plan.facts import Topology
from ssl_jax.plan.program import Topology
from ssl_jax.training.step import abstract_state, born_sharded

STEPS = 5  # timed, after as many as it takes to warm
WARM = 2


def ready(
    config: ConfigDict, topology: Topology, *, images: int, classes: int
) -> Callable[[], Checked]:
    """Compiles the training's step for the devices here; the result runs it, on random images.

    Raises:
      Fault: the topology's devices are not here.
    """
    here = mesh(topology, config.parallel.fsdp)
    training = build.training(config, here, images=images, classes=classes)
    batch = build.abstract_batch(config, here)
    state = abstract_state(training.init, training.method, here)
    with jax.set_mesh(here):
        compiled = training.train_step.lower(state, batch).compile()

    def new() -> tuple[Any, Any]:
        return born_sharded(training.init, training.method, here), random_batch(batch)

    with jax.set_mesh(here):
        new()  # compiled now: what compiling takes is no part of what a step takes
    return lambda: run(compiled, here, new)


def state_bytes(config: ConfigDict, *, images: int, classes: int) -> int:
    """Of a checkpoint: every array of the state once."""
    one = parallel.make_mesh(jax.devices("cpu")[:1])
    init = build.training(config, one, images=images, classes=classes).init
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(jax.eval_shape(init)))


def mesh(topology: Topology, fsdp: int) -> Mesh:
    """The devices here as the topology's; raises Fault where they are others or fewer."""
    platform = "gpu" if topology.chip.kind == "gpu" else "cpu"
    here = [d for d in jax.devices() if d.platform == platform]
    if topology.chip.kind == "tpu" or len(here) < topology.devices:
        what = f"{len(here)} {platform} devices" if here else f"no {platform} device"
        message = f"--check runs the step here, which is no {topology.name}: there is {what}"
        raise Fault(message, MISSING_INPUT)
    return parallel.make_mesh(here[: topology.devices], fsdp=fsdp)


def run(compiled: Any, mesh: Mesh, new: Callable[[], tuple[Any, Any]]) -> Checked:
    """Times a compiled step (state, batch) -> (state, metrics) that donates its state.

    Args:
      new: makes a state and a batch.
    """
    with jax.set_mesh(mesh), resident.Peak() as peak:
        state, batch = new()
        for _ in range(WARM):
            state, metrics = compiled(state, batch)
            jax.block_until_ready(metrics)
        times = []
        for _ in range(STEPS):
            start = time.perf_counter()
            state, metrics = compiled(state, batch)
            jax.block_until_ready((state, metrics))
            times.append(time.perf_counter() - start)
    stats = mesh.devices.flat[0].memory_stats()
    memory = stats["peak_bytes_in_use"] if stats else peak.grown // mesh.size
    return Checked(float(np.median(times)), min(times), max(times), STEPS, memory)


def random_batch(batch: dict[str, jax.ShapeDtypeStruct]) -> dict[str, jax.Array]:
    """Arrays like those of `build.abstract_batch`; images and decisions are random."""
    random = np.random.default_rng(0)

    def array(like: jax.ShapeDtypeStruct) -> jax.Array:
        values: np.ndarray
        if np.issubdtype(like.dtype, np.floating):
            values = random.random(like.shape, np.float32)
        else:  # labels are all 0
            highest = 256 if like.dtype == np.uint8 else 1
            values = random.integers(0, highest, like.shape, like.dtype)
        return jax.device_put(values, like.sharding)

    return jax.tree.map(array, batch)
