"""Compiles a run's own train step for a topology, ahead of time, and reads what it will take.

TPUs: libtpu compiles without one. CPUs: virtual devices. GPUs: nothing compiles for them without
one, so the same step is compiled for as many TPU v5p chips, whose memory is nearest, and stands in.
"""

import math
import re
import time
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from ssl_jax import build, parallel, step
from ssl_jax.plan import exchange, shares, topologies, work
from ssl_jax.plan.exchange import Grid
from ssl_jax.plan.facts import Memory, Program, Topology
from ssl_jax.plan.hlo import Module

# What JAX takes of a GPU's memory by default (XLA_PYTHON_CLIENT_MEM_FRACTION).
GPU_SHARE = 0.75
UNITS = {"B": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
# Shapes of v5p slices that stand in for so many GPUs.
STAND_INS = {4: "2x2x1", 8: "2x2x2", 16: "2x2x4", 32: "2x4x4", 64: "4x4x4", 128: "4x4x8",
             256: "4x8x8", 512: "8x8x8", 1024: "8x8x16", 2048: "8x16x16"}  # fmt: skip


def program(config: ConfigDict, topology: Topology, *, images: int, classes: int) -> Program:
    """The facts of a run's train step on a topology; a program that lacks memory is a fact too.

    Args:
      images, classes: of the training data, which need not be here; 0 classes for no labels.

    Raises:
      Fault: the config or the topology cannot be, or they do not divide.
    """
    devices = _devices(topology)
    mesh = parallel.make_mesh(devices, fsdp=config.parallel.fsdp)
    training, state, batch = _step(config, mesh, images, classes)
    whole = Module(_one_device(config, devices[:1], images, classes))
    products = work.products(whole)
    even = work.total(products) / mesh.size
    arguments = _arguments(state, batch)
    axes = tuple(zip(mesh.axis_names, mesh.devices.shape, strict=True))
    start = time.monotonic()
    with jax.set_mesh(mesh):
        lowered = training.train_step.lower(state, batch)
        try:
            compiled = lowered.compile()
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            return Program(
                topology=topology,
                global_batch=config.train.batch_size,
                memory=_exhausted(arguments, str(error), _limit(topology)),
                flops=even,
                even_flops=even,
                bytes=0.0,
                collectives=(),
                replicated=(),
                compile_seconds=time.monotonic() - start,
                compiled_for=_told(topology) + " It lacks memory, so its work is an even share.",
                mesh=axes,
                out_of_memory=str(error).split("\n")[0],
            )
        seconds = time.monotonic() - start
    module = Module(compiled.as_text())
    own, found = work.products(module), exchange.exchanges(module, _grid(topology, mesh))
    outputs = _outputs(config, training, state, batch)

    def grows(name: str) -> bool:
        half = ConfigDict(config.to_dict())
        half.train.batch_size //= 2
        half.train.microbatch = min(half.train.microbatch, half.train.batch_size)
        lowered = Module(_one_device(half, devices[:1], images, classes))
        before = work.by_source(work.products(lowered)).get(name, 0.0)
        return before < 0.75 * work.by_source(products).get(name, math.inf)

    loss = _objective_bytes(training, state, outputs, mesh)
    return Program(
        topology=topology,
        global_batch=config.train.batch_size,
        memory=_memory(compiled.memory_analysis(), arguments, loss, _limit(topology)),
        flops=work.total(own),
        even_flops=even,
        bytes=compiled.cost_analysis()["bytes accessed"] * work.loops_factor(module),
        collectives=exchange.merged(found),
        replicated=(
            *shares.repeated(own, products, mesh.size, grows),
            *shares.exchanged(found, _device_bytes(outputs)),
        ),
        compile_seconds=seconds,
        compiled_for=_told(topology),
        mesh=axes,
    )


def _devices(topology: Topology) -> list[Any]:
    """Those to compile for: the topology's own, or of the slice that stands in for GPUs."""
    if topology.chip.kind != "gpu":
        return topologies.devices(topology)
    size = min(n for n in STAND_INS if n >= topology.devices)
    return topologies.devices(topologies.parse(f"v5p:{STAND_INS[size]}"))[: topology.devices]


def _step(
    config: ConfigDict, mesh: Mesh, images: int, classes: int
) -> tuple[build.Training, step.TrainState, dict[str, jax.ShapeDtypeStruct]]:
    """The training with the shapes of its state and batch."""
    training = build.training(config, mesh, images=images, classes=classes)
    state = step.abstract_state(training.init, training.method, mesh)
    return training, state, build.abstract_batch(config, mesh)


def _one_device(config: ConfigDict, devices: list[Any], images: int, classes: int) -> str:
    """The same step for one device, lowered and not compiled."""
    mesh = parallel.make_mesh(devices)
    training, state, batch = _step(config, mesh, images, classes)
    with jax.set_mesh(mesh):
        return training.train_step.lower(state, batch).as_text("hlo", debug_info=True)


def _grid(topology: Topology, mesh: Mesh) -> Grid:
    axes = tuple(zip(mesh.axis_names, mesh.devices.shape, strict=True))
    if topology.chip.kind == "gpu":
        hosts = tuple(device // topology.shape[0] for device in range(mesh.size))
        return Grid(axes, hosts, "nvlink")
    slices = tuple(getattr(d, "slice_index", None) or 0 for d in mesh.devices.flat)
    return Grid(axes, slices, "ici" if topology.chip.kind == "tpu" else "memory")


def _outputs(
    config: ConfigDict, training: build.Training, state: step.TrainState, batch: Any
) -> dict[str, jax.ShapeDtypeStruct]:
    """What the encoder gives to the objective, by rows."""

    def encode(state: step.TrainState, batch: Any) -> Any:
        inputs = {name: value for name, value in batch.items() if name != "label"}
        prepared = build.prepare(config)(inputs)
        return training.method.encode(state.params, state.extra, prepared, jax.random.key(0))[0]

    sharding = batch["index"].sharding
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        jax.eval_shape(encode, state, batch),
    )


def _objective_bytes(
    training: build.Training, state: step.TrainState, outputs: Any, mesh: Mesh
) -> int:
    """Temporaries of the objective and its gradients, compiled alone."""
    smooth = {n: x for n, x in outputs.items() if jax.numpy.issubdtype(x.dtype, jax.numpy.inexact)}
    rest = {name: x for name, x in outputs.items() if name not in smooth}

    def objective(params: Any, smooth: Any, rest: Any, extra: Any, count: jax.Array) -> Any:
        key = jax.random.key(0)
        return training.method.objective(params, extra, smooth | rest, key, count)

    gradients = jax.value_and_grad(objective, argnums=(0, 1), has_aux=True)
    arguments = (state.params, smooth, rest, state.extra, state.step)
    with jax.set_mesh(mesh):
        stats = jax.jit(gradients).lower(*arguments).compile().memory_analysis()
    return stats.temp_size_in_bytes if stats else 0


def _arguments(state: step.TrainState, batch: Any) -> dict[str, int]:
    """Bytes on one device, without padding."""
    return {
        "parameters": _device_bytes(state.params),
        "optimizer": _device_bytes(state.opt_state),
        "extra": _device_bytes((state.extra, state.probe, state.step)),
        "batch": _device_bytes(batch),
    }


def _device_bytes(tree: Any) -> int:
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def _memory(stats: Any, arguments: dict[str, int], loss: int, limit: int) -> Memory:
    new = stats.output_size_in_bytes - stats.alias_size_in_bytes
    temporary = stats.temp_size_in_bytes + stats.generated_code_size_in_bytes + new
    loss = min(loss, temporary)
    return Memory(
        **arguments,
        activations=temporary - loss,
        loss=loss,
        padding=stats.argument_size_in_bytes - sum(arguments.values()),
        total=stats.argument_size_in_bytes + temporary,
        limit=limit,
    )


def _exhausted(arguments: dict[str, int], message: str, limit: int) -> Memory:
    """From a refusal: "memory required for HLO temporaries (770.00G) exceeds available ..."."""
    sizes = [float(n) * UNITS[unit] for n, unit in re.findall(r"([\d.]+)([BKMGT])\b", message)]
    needed = max(int(max(sizes, default=0)), limit + 1)
    activations = max(needed - sum(arguments.values()), 0)
    return Memory(
        **arguments, activations=activations, loss=0, padding=0, total=needed, limit=limit
    )


def _limit(topology: Topology) -> int:
    """Bytes that a program may take on one device."""
    chip = topology.chip
    share = GPU_SHARE if chip.kind == "gpu" else 1
    return int(share * chip.hbm_bytes) // chip.devices_per_chip


def _told(topology: Topology) -> str:
    """What was compiled, and what is modelled."""
    counted = (
        "FLOPs are those of its matrix products and convolutions, loops counted; "
        "memory is the compiler's; parameters, optimizer and batch are exact"
    )
    if topology.chip.kind == "tpu":
        return f"The train step, compiled by libtpu for {topology.name}. {counted}."
    if topology.chip.kind == "cpu":
        return f"The train step, compiled for {topology.devices} virtual CPU devices. {counted}."
    return (
        f"The train step, compiled by libtpu for {topology.devices} TPU v5p chips that stand in "
        f"for {topology.name}, for which nothing compiles without it. Of these {counted}. A GPU's "
        "program exchanges the same sizes, but fuses otherwise: its memory and traffic differ, and "
        f"JAX takes {GPU_SHARE:.0%} of its memory unless XLA_PYTHON_CLIENT_MEM_FRACTION says more."
    )
