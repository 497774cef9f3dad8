"""The prediction beside the truth: the compiled step, run on this machine's own devices."""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from ssl_jax import build, parallel
from ssl_jax.augment.views import Decisions, split
from ssl_jax.errors import MISSING_INPUT, Fault
from ssl_jax.plan import resident
from ssl_jax.plan.compiled import Checked
from ssl_jax.plan.facts import Topology
from ssl_jax.step import Probe, TrainState, born_sharded, init_fn, make_train_step

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
    algorithm, optimizer, schedule, probe = _parts(config, images, classes, here.size)
    train_step = make_train_step(
        algorithm,
        optimizer,
        schedule,
        probe,
        seed=config.train.seed,
        mesh=here,
        prepare=build.prepare(config),
        microbatch=config.train.microbatch,
        noise_scale=config.train.noise_scale,
    )
    init = init_fn(algorithm, optimizer, probe, build.batch_spec(config), seed=config.train.seed)
    with jax.set_mesh(here):
        options = parallel.compiler_options(here)
        jitted = jax.jit(train_step, donate_argnums=0, compiler_options=options)

        def new_state() -> TrainState:
            return born_sharded(init, algorithm, here)

        def new_batch() -> dict[str, jax.Array]:
            return parallel.to_global(random_batch(config), here)

        # Both made once before: what compiling takes is no part of what a step takes.
        compiled = jitted.lower(new_state(), new_batch()).compile()
    return lambda: run(compiled, here, new_state, new_batch)


def state_bytes(config: ConfigDict, *, images: int, classes: int) -> int:
    """Of a checkpoint: every array of the state once."""
    algorithm, optimizer, _, probe = _parts(config, images, classes, 1)
    init = init_fn(algorithm, optimizer, probe, build.batch_spec(config), seed=0)
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(jax.eval_shape(init)))


def _parts(config: ConfigDict, images: int, classes: int, devices: int) -> tuple[Any, ...]:
    total = build.total_steps(config, images)
    algorithm = build.started(config, build.method(config, total, images, devices))
    probe = Probe(classes if config.train.probe and classes > 1 else 0)
    return algorithm, *build.optimizer(config, images, total), probe


def mesh(topology: Topology, fsdp: int) -> Mesh:
    """The devices here as the topology's; raises Fault where they are others or fewer."""
    platform = "gpu" if topology.chip.kind == "gpu" else "cpu"
    here = [device for device in jax.devices() if device.platform == platform]
    if topology.chip.kind == "tpu" or len(here) < topology.devices:
        what = f"{len(here)} {platform} devices" if here else f"no {platform} device"
        message = f"--check runs the step here, which is no {topology.name}: there is {what}"
        raise Fault(message, MISSING_INPUT)
    return parallel.make_mesh(here[: topology.devices])


def run(
    compiled: Any, mesh: Mesh, new_state: Callable[[], Any], new_batch: Callable[[], Any]
) -> Checked:
    """Times a compiled step (state, batch) -> (state, metrics) that donates its state."""
    with jax.set_mesh(mesh), resident.Peak() as peak:
        state, batch = new_state(), new_batch()
        for _ in range(WARM):
            state, metrics = compiled(state, batch)
            jax.block_until_ready(metrics)
        times = []
        for _ in range(STEPS):
            start = time.perf_counter()
            state, metrics = compiled(state, batch)
            jax.block_until_ready((state, metrics))
            times.append(time.perf_counter() - start)
    stats = jax.local_devices()[0].memory_stats()
    memory = stats["peak_bytes_in_use"] if stats else peak.grown // jax.local_device_count()
    return Checked(float(np.median(times)), min(times), max(times), STEPS, memory)


def random_batch(config: ConfigDict) -> dict[str, np.ndarray]:
    """What the pipeline gives, with random images and decisions."""
    random, b = np.random.default_rng(0), config.train.batch_size
    batch = {"index": np.arange(b, dtype=np.int32), "label": np.zeros(b, np.int32)}
    for prefix, views in zip(("", "local_"), split(build.views(config)), strict=True):
        if not views:
            continue
        shape = (b, len(views), views[0].size, views[0].size, 3)
        if config.augment.placement == "host":
            batch[f"{prefix}views"] = random.random(shape, np.float32)
        else:
            batch[f"{prefix}views"] = random.integers(0, 256, shape, np.uint8)
            decisions = (b, len(views), len(Decisions._fields))
            batch[f"{prefix}decisions"] = random.random(decisions, np.float32)
    return batch
