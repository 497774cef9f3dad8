"""Compiles a run's own train step for a topology, ahead of time, and reads what it will take.

TPUs: libtpu compiles without one. CPUs: virtual devices. GPUs: nothing compiles for them without
one, so the same step is compiled for as many TPU v5p chips, whose memory is nearest, and stands in.
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

from ssl_jax import build, parallel
from ssl_jax.inputs.image.views import split
from ssl_jax.plan import (
    collectives,
    cost_analysis,
    memory,
    repeated_work,
    topologies,
)
from ssl_jax.plan.collectives import Grid
from ssl_jax.plan.exchange import Grid
from ssl_jax.plan.facts import Program, Topology
from ssl_jax.plan.hlo import Module
from ssl_jax.plan.program import Program, Topology
from ssl_jax.training import step

# Shapes of v5p slices that stand in for so many GPUs.
STAND_INS = {4: "2x2x1", 8: "2x2x2", 16: "2x2x4", 32: "2x4x4", 64: "4x4x4", 128: "4x4x8",
             256: "4x8x8", 512: "8x8x8", 1024: "8x8x16", 2048: "8x16x16"}  # fmt: skip


class _Plan(NamedTuple):
    """What is compiled."""

    config: ConfigDict
    topology: Topology
    images: int
    classes: int
    mesh: Mesh
    training: build.Training
    state: step.TrainState  # shapes and shardings, as are:
    batch: dict[str, jax.ShapeDtypeStruct]
    products: list[cost_analysis.Product]  # of the same step for one device


def program(config: ConfigDict, topology: Topology, *, images: int, classes: int) -> Program:
    """The facts of a run's train step on a topology; a program that lacks memory is a fact too.

    Args:
      images, classes: of the training data, which need not be here; 0 classes for no labels.

    Raises:
      Fault: the config or the topology cannot be, or they do not divide.
    """
    plan = _plan(config, topology, images, classes)
    start = time.monotonic()
    with jax.set_mesh(plan.mesh):
        lowered = plan.training.train_step.lower(plan.state, plan.batch)
        try:
            compiled = lowered.compile()
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            return _refused(plan, str(error), time.monotonic() - start)
    return _read(plan, compiled, time.monotonic() - start)


def _plan(config: ConfigDict, topology: Topology, images: int, classes: int) -> _Plan:
    mesh = parallel.make_mesh(_devices(topology), fsdp=config.parallel.fsdp)
    views = len(split(build.views(config))[0])
    division = {"microbatch": config.train.microbatch, "bn_group": config.model.bn_group}
    parallel.check_batch(config.train.batch_size, mesh.size, views=views, **division)
    parts = _step(config, mesh, images, classes)
    products = _on_one(config, mesh, images, classes)
    return _Plan(config, topology, images, classes, mesh, *parts, products)


def _refused(plan: _Plan, message: str, seconds: float) -> Program:
    """The program that lacks memory: what it would do is taken for an even share."""
    even = cost_analysis.total(plan.products) / plan.mesh.size
    return Program(
        topology=plan.topology,
        global_batch=plan.config.train.batch_size,
        memory=memory.refused(plan.state, plan.batch, message, memory.limit(plan.topology)),
        flops=even,
        even_flops=even,
        bytes=0.0,
        collectives=(),
        replicated=(),
        compile_seconds=seconds,
        compiled_for=_told(plan.topology) + " It lacks memory: its work is taken for even.",
        mesh=_axes(plan.mesh),
        out_of_memory=message.split("\n")[0],
    )


def _read(plan: _Plan, compiled: jax.stages.Compiled, seconds: float) -> Program:
    """The facts of the compiled program."""
    module, cost = Module(compiled.as_text() or ""), compiled.cost_analysis() or {}
    own, outputs = cost_analysis.products(module), _outputs(plan)
    found = collectives.exchanges(module, _grid(plan.topology, plan.mesh))
    repeated = repeated_work.repeated(own, plan.products, plan.mesh.size, _growing(plan))
    return Program(
        topology=plan.topology,
        global_batch=plan.config.train.batch_size,
        memory=memory.taken(
            plan.state,
            plan.batch,
            compiled.memory_analysis(),
            loss=_objective_bytes(plan, outputs),
            limit=memory.limit(plan.topology),
        ),
        flops=cost_analysis.total(own),
        even_flops=cost_analysis.total(plan.products) / plan.mesh.size,
        bytes=cost["bytes accessed"] * cost_analysis.loops_factor(module),
        collectives=collectives.merged(found),
        replicated=(*repeated, *repeated_work.exchanged(found, memory.of_device(outputs))),
        compile_seconds=seconds,
        compiled_for=_told(plan.topology),
        mesh=_axes(plan.mesh),
    )


def _growing(plan: _Plan) -> Callable[[str], bool]:
    """Whether the work of a scope grows with the batch: when asked, held against twice as much."""
    whole = cost_analysis.by_scope(plan.products)

    @cache
    def of_twice() -> dict[str, float]:
        twice = ConfigDict(plan.config.to_dict())
        twice.train.batch_size *= 2
        return cost_analysis.by_scope(_on_one(twice, plan.mesh, plan.images, plan.classes))

    return lambda scope: of_twice().get(scope, math.inf) > 1.5 * whole.get(scope, 0.0)


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


def _on_one(
    config: ConfigDict, mesh: Mesh, images: int, classes: int
) -> list[cost_analysis.Product]:
    """The work of the same step for one device of the mesh; lowered and not compiled."""
    one = parallel.make_mesh([mesh.devices.flat[0]])
    training, state, batch = _step(config, one, images, classes)
    with jax.set_mesh(one):
        text = training.train_step.lower(state, batch).as_text("hlo", debug_info=True)
    return cost_analysis.products(Module(text or ""))


def _axes(mesh: Mesh) -> tuple[tuple[str, int], ...]:
    return tuple(zip(mesh.axis_names, mesh.devices.shape, strict=True))


def _grid(topology: Topology, mesh: Mesh) -> Grid:
    axes = _axes(mesh)
    if topology.chip.kind == "gpu":
        hosts = tuple(device // topology.shape[0] for device in range(mesh.size))
        return Grid(axes, hosts, "nvlink")
    slices = tuple(getattr(d, "slice_index", None) or 0 for d in mesh.devices.flat)
    return Grid(axes, slices, "ici" if topology.chip.kind == "tpu" else "memory")


def _outputs(plan: _Plan) -> dict[str, jax.ShapeDtypeStruct]:
    """What the encoder gives to the objective, by rows."""

    def encode(state: step.TrainState, batch: Any) -> Any:
        inputs = {name: value for name, value in batch.items() if name != "label"}
        prepared = build.prepare(plan.config)(inputs)
        key = jax.random.key(0)
        return plan.training.method.encode(state.params, state.extra, prepared, key)[0]

    rows = parallel.rows(plan.mesh)
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=rows),
        jax.eval_shape(encode, plan.state, plan.batch),
    )


def _objective_bytes(plan: _Plan, outputs: dict[str, jax.ShapeDtypeStruct]) -> int:
    """Temporaries of the objective and its gradients, compiled alone."""
    smooth = {name: x for name, x in outputs.items() if jnp.issubdtype(x.dtype, jnp.inexact)}
    rest = {name: x for name, x in outputs.items() if name not in smooth}

    def objective(params: Any, smooth: Any, rest: Any, extra: Any, count: jax.Array) -> Any:
        key = jax.random.key(0)
        return plan.training.method.objective(params, extra, smooth | rest, key, count)

    gradients = jax.value_and_grad(objective, argnums=(0, 1), has_aux=True)
    state = plan.state
    with jax.set_mesh(plan.mesh):
        lowered = jax.jit(gradients).lower(state.params, smooth, rest, state.extra, state.step)
        stats = lowered.compile().memory_analysis()
    return stats.temp_size_in_bytes if stats else 0


def _told(topology: Topology) -> str:
    """What was compiled, and what is modelled."""
    counted = (
        "FLOPs are those of its matrix products and convolutions, loops counted; "
        "memory is the compiler's; parameters, optimizer and batch are exact"
    )
    if topology.chip.kind == "tpu":
        if topology.slices == 1:
            return f"The train step, compiled by libtpu for {topology.name}. {counted}."
        return (
            f"The train step, compiled by libtpu for {topology.slices} slices {topology.name}. "
            f"{counted}. In such a program exchanges have no names: whether examples travel is "
            "only seen with one slice."
        )
    if topology.chip.kind == "cpu":
        return f"The train step, compiled for {topology.devices} virtual CPU devices. {counted}."
    return (
        f"The train step, compiled by libtpu for {topology.devices} TPU v5p chips that stand in "
        f"for {topology.name}, for which nothing compiles without it. Of these {counted}. A GPU's "
        "program exchanges the same sizes, but fuses otherwise: its memory and traffic differ. JAX "
        f"takes {memory.GPU_SHARE:.0%} of it unless XLA_PYTHON_CLIENT_MEM_FRACTION says more."
    )
