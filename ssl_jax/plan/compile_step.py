"""Compiles a run's own train step for a topology, ahead of time, and reads its program.

libtpu compiles for TPUs that are not attached. CPU topologies are virtual devices. Compiling for
GPUs needs a GPU, so the same number of TPU v5p chips, whose memory is nearest, stands in.
"""

import math
import time
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from ssl_jax import build, components, parallel
from ssl_jax.plan import (
    collectives,
    cost_analysis,
    memory,
    memory_traffic,
    repeated_work,
    topologies,
)
from ssl_jax.plan.collectives import Grid
from ssl_jax.plan.cost_analysis import Product
from ssl_jax.plan.hlo import Module
from ssl_jax.plan.program import Program
from ssl_jax.plan.topologies import Topology
from ssl_jax.training.parts import Computation
from ssl_jax.training.state import TrainState

# Shapes of v5p slices that stand in for a number of GPUs.
STAND_INS = {4: "2x2x1", 8: "2x2x2", 16: "2x2x4", 32: "2x4x4", 64: "4x4x4", 128: "4x4x8",
             256: "4x8x8", 512: "8x8x8", 1024: "8x8x16", 2048: "8x16x16"}  # fmt: skip


class _Setup(NamedTuple):
    """The step to compile, with its arguments.

    Attributes:
      images, classes: number of training images and classes.
      state, batch: shapes and shardings.
      products: work of the same step for a single device.
    """

    config: ConfigDict
    topology: Topology
    images: int
    classes: int
    mesh: Mesh
    training: Computation
    state: TrainState
    batch: dict[str, jax.ShapeDtypeStruct]
    products: list[Product]


def compile_program(
    config: ConfigDict, topology: Topology, *, images: int, classes: int
) -> Program:
    """Compiles a run's train step for a topology.

    A step that needs more memory than a device has also gives a `Program`, with `out_of_memory`.

    Args:
      images: number of training images; the images themselves are not read.
      classes: number of classes; 0 for no labels.

    Raises:
      Fault: the config or the topology is not valid, or the batch does not divide.
    """
    setup = _setup(config, topology, images, classes)
    start = time.monotonic()
    with jax.set_mesh(setup.mesh):
        lowered = setup.training.train_step.lower(setup.state, setup.batch)
        try:
            executable = lowered.compile()
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            return _out_of_memory_program(setup, str(error), time.monotonic() - start)
    return _read_program(setup, executable, time.monotonic() - start)


def _setup(config: ConfigDict, topology: Topology, images: int, classes: int) -> _Setup:
    mesh = parallel.make_mesh(_compile_devices(topology), fsdp=config.parallel.fsdp)
    parallel.check_batch(config.train.batch_size, mesh.size, **components.batch_sizes(config))
    training, state, batch = _abstract_step(config, mesh, images, classes)
    products = _single_device_products(config, mesh, images, classes)
    return _Setup(config, topology, images, classes, mesh, training, state, batch, products)


def _out_of_memory_program(setup: _Setup, message: str, seconds: float) -> Program:
    """Returns the program of a step that does not fit; its work is assumed to divide evenly."""
    even = cost_analysis.total_flops(setup.products) / setup.mesh.size
    limit = memory.device_limit(setup.topology)
    return Program(
        topology=setup.topology,
        global_batch=setup.config.train.batch_size,
        memory=memory.from_error(setup.state, setup.batch, message, limit),
        flops=even,
        even_flops=even,
        bytes=0.0,
        collectives=(),
        replicated=(),
        compile_seconds=seconds,
        compiled_for=_description(setup.topology)
        + " The step does not fit in memory; its work is assumed to divide evenly.",
        mesh=_axes(setup.mesh),
        out_of_memory=message.split("\n")[0],
    )


def _read_program(setup: _Setup, executable: jax.stages.Compiled, seconds: float) -> Program:
    module = Module(executable.as_text() or "")
    own, outputs = cost_analysis.find_products(module), _encoder_outputs(setup)
    exchanges = collectives.find_collectives(module, _grid(setup.topology, setup.mesh))
    repeated = repeated_work.find_repeated_work(
        own, setup.products, setup.mesh.size, _grows_with_batch(setup)
    )
    exchanged = repeated_work.find_exchanged_examples(exchanges, memory.bytes_per_device(outputs))
    return Program(
        topology=setup.topology,
        global_batch=setup.config.train.batch_size,
        memory=memory.from_analysis(
            setup.state,
            setup.batch,
            executable.memory_analysis(),
            loss=_objective_bytes(setup, outputs),
            limit=memory.device_limit(setup.topology),
        ),
        flops=cost_analysis.total_flops(own),
        even_flops=cost_analysis.total_flops(setup.products) / setup.mesh.size,
        bytes=memory_traffic.total_bytes(module, fast_memory=setup.topology.chip.kind == "tpu"),
        collectives=collectives.merge_equal(exchanges),
        replicated=(*repeated, *exchanged),
        compile_seconds=seconds,
        compiled_for=_description(setup.topology),
        mesh=_axes(setup.mesh),
    )


def _grows_with_batch(setup: _Setup) -> Callable[[str], bool]:
    """Returns a function that is True for a scope whose work grows with the batch.

    It compares with the work at twice the batch size, which is lowered on the first call only.
    """
    whole = cost_analysis.flops_by_scope(setup.products)

    @cache
    def at_twice_the_batch() -> dict[str, float]:
        twice = ConfigDict(setup.config.to_dict())
        twice.train.batch_size *= 2
        products = _single_device_products(twice, setup.mesh, setup.images, setup.classes)
        return cost_analysis.flops_by_scope(products)

    return lambda scope: at_twice_the_batch().get(scope, math.inf) > 1.5 * whole.get(scope, 0.0)


def _compile_devices(topology: Topology) -> list[Any]:
    """Returns the topology's devices, or those of the slice that stands in for GPUs."""
    if topology.chip.kind != "gpu":
        return topologies.compile_devices(topology)
    size = min(n for n in STAND_INS if n >= topology.devices)
    stand_in = topologies.parse(f"v5p:{STAND_INS[size]}")
    return topologies.compile_devices(stand_in)[: topology.devices]


def _abstract_step(
    config: ConfigDict, mesh: Mesh, images: int, classes: int
) -> tuple[Computation, TrainState, dict[str, jax.ShapeDtypeStruct]]:
    """Returns the training with the shapes of its state and batch."""
    training = build.computation(config, mesh, examples=images, classes=classes)
    return training, training.abstract_state, components.abstract_batch(config, mesh)


def _single_device_products(
    config: ConfigDict, mesh: Mesh, images: int, classes: int
) -> list[Product]:
    """Returns the work of the same step on one device of the mesh; lowered, not compiled."""
    one = parallel.make_mesh([mesh.devices.flat[0]])
    training, state, batch = _abstract_step(config, one, images, classes)
    with jax.set_mesh(one):
        text = training.train_step.lower(state, batch).as_text("hlo", debug_info=True)
    return cost_analysis.find_products(Module(text or ""))


def _axes(mesh: Mesh) -> tuple[tuple[str, int], ...]:
    return tuple(zip(mesh.axis_names, mesh.devices.shape, strict=True))


def _grid(topology: Topology, mesh: Mesh) -> Grid:
    axes = _axes(mesh)
    if topology.chip.kind == "gpu":
        hosts = tuple(device // topology.shape[0] for device in range(mesh.size))
        return Grid(axes, hosts, "nvlink")
    slices = tuple(getattr(d, "slice_index", None) or 0 for d in mesh.devices.flat)
    return Grid(axes, slices, "ici" if topology.chip.kind == "tpu" else "memory")


def _encoder_outputs(setup: _Setup) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the encoder's outputs, the objective's inputs, sharded by rows."""

    def encode(state: TrainState, batch: Any) -> Any:
        inputs = {name: value for name, value in batch.items() if name != "label"}
        prepared = setup.training.input.device(inputs)
        key = jax.random.key(0)
        return setup.training.method.encode(state.params, state.extra, prepared, key)[0]

    rows = parallel.rows(setup.mesh)
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=rows),
        jax.eval_shape(encode, setup.state, setup.batch),
    )


def _objective_bytes(setup: _Setup, outputs: dict[str, jax.ShapeDtypeStruct]) -> int:
    """Returns the bytes of temporaries of the objective and its gradients, compiled alone."""
    smooth = {name: x for name, x in outputs.items() if jnp.issubdtype(x.dtype, jnp.inexact)}
    rest = {name: x for name, x in outputs.items() if name not in smooth}

    def objective(params: Any, smooth: Any, rest: Any, extra: Any, count: jax.Array) -> Any:
        key = jax.random.key(0)
        return setup.training.method.objective(params, extra, smooth | rest, key, count)

    gradients = jax.value_and_grad(objective, argnums=(0, 1), has_aux=True)
    state = setup.state
    with jax.set_mesh(setup.mesh):
        lowered = jax.jit(gradients).lower(state.params, smooth, rest, state.extra, state.step)
        stats = lowered.compile().memory_analysis()
    return stats.temp_size_in_bytes if stats else 0


def _description(topology: Topology) -> str:
    """Says what was compiled and where its numbers come from."""
    sources = (
        "FLOPs count its matrix products and convolutions, with every loop iteration; "
        "memory is the compiler's figure; parameters, optimizer and batch are exact"
    )
    if topology.chip.kind == "tpu":
        traffic = (
            "HBM traffic is counted from the program's scheduled operations: each one reads its "
            "operands and writes its results once, with the padding of tiles; arrays in VMEM are "
            "free, and a prefetch counts what it copies"
        )
        if topology.slices == 1:
            return f"The train step, compiled by libtpu for {topology.name}. {sources}. {traffic}."
        return (
            f"The train step, compiled by libtpu for {topology.slices} slices {topology.name}. "
            f"{sources}. {traffic}. In a program for several slices exchanges have no names: plan "
            "one slice to see if devices exchange examples."
        )
    traffic = (
        "Memory traffic is counted from the program's scheduled operations: each one reads its "
        "operands and writes its results once, without caches"
    )
    if topology.chip.kind == "cpu":
        return (
            f"The train step, compiled for {topology.devices} virtual CPU devices. {sources}. "
            f"{traffic}."
        )
    return (
        f"The train step, compiled by libtpu for {topology.devices} TPU v5p chips that stand in "
        f"for {topology.name}, because compiling for GPUs needs a GPU. On these chips {sources}. "
        f"{traffic} and without VMEM, which a GPU lacks. A GPU's program exchanges the same sizes "
        "but fuses operations differently: its memory and traffic differ. JAX uses "
        f"{memory.GPU_SHARE:.0%} of a GPU's memory unless XLA_PYTHON_CLIENT_MEM_FRACTION sets "
        "another fraction."
    )
