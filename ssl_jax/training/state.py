"""The state of a run: parameters, the method's `extra`, optimizer, probe, and their shardings."""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from ssl_jax import parallel
from ssl_jax.methods import Method, Tree
from ssl_jax.training.probe import Probe


class TrainState(flax.struct.PyTreeNode):
    """All arrays that a run carries from step to step. Randomness is derived from `step`."""

    step: jax.Array  # int32 []
    params: Tree
    extra: Tree
    opt_state: Tree
    probe: Tree  # the online probe's parameters and optimizer state; {} without labels


def init_method(method: Method, spec: Tree, seed: int) -> tuple[Tree, Tree]:
    """Returns (params, extra) of a method at step 0.

    Args:
      method: the method.
      spec: shapes of the global batch as the method sees it. Two examples of zeros are enough to
        initialise the method.
      seed: seed of the run.
    """
    zeros = jax.tree.map(lambda x: jnp.zeros((2, *x.shape[1:]), x.dtype), spec)
    return method.init(jax.random.key(seed), zeros)


def init_fn(
    method: Method,
    tx: optax.GradientTransformation,
    probe: Probe,
    spec: Tree,
    *,
    seed: int,
    supervised: bool = False,
) -> Callable[[], TrainState]:
    """Returns the function that makes the state of step 0; run it under `born_sharded`.

    Args:
      method: the method.
      tx: the optimizer.
      probe: the online probe.
      spec: the global batch as the method sees it (the input's `seen` arrays and "index" [b]), as
        ShapeDtypeStructs or arrays; only shapes and dtypes are read.
      seed: seed of the run.
      supervised: the objective also takes labels, as in `make_train_step`.

    The returned function raises ValueError if the method does not accept such a batch.
    """

    def init() -> TrainState:
        params, extra = init_method(method, spec, seed)

        def forward(batch: Tree) -> Tree:
            key = jax.random.key(seed)
            outputs, _ = method.encode(params, extra, batch, key)
            label = {"label": jnp.zeros_like(batch["index"])} if supervised else {}
            # Checks the objective on the shapes of the whole batch before the step is compiled.
            method.objective(params, extra, outputs | label, key, jnp.zeros((), jnp.int32))
            return outputs

        outputs = jax.eval_shape(forward, spec)
        width = outputs["features"].shape[-1] if "features" in outputs else 0
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            extra=extra,
            opt_state=tx.init(params),
            probe=probe.init(width) if width else {},
        )

    return init


def state_shardings(state: TrainState, layout: Tree, mesh: Mesh) -> TrainState:
    """Returns the sharding of every array of the state.

    Parameters and optimizer state are divided over "fsdp"; `layout` describes `extra`.
    """
    words = ("replicated", "parameters", layout, "parameters", "replicated")
    parts = (state.step, state.params, state.extra, state.opt_state, state.probe)
    return TrainState(*parallel.shardings(words, parts, mesh))


def abstract_state(
    init: Callable[..., TrainState], layout: Tree, mesh: Mesh, *arguments: Any
) -> TrainState:
    """Returns shapes, dtypes and shardings of the state, to restore a checkpoint onto this mesh."""
    abstract = jax.eval_shape(init, *arguments)
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
        abstract,
        state_shardings(abstract, layout, mesh),
    )


def born_sharded(init: Callable[..., Tree], shardings: Tree, mesh: Mesh, *arguments: Any) -> Tree:
    """Runs `init` so that each array is created on the devices that hold it.

    Args:
      init: makes the arrays from `arguments`.
      shardings: shardings of the result.
      mesh: the devices.
      arguments: arguments of `init`.
    """
    # XLA's CPU backend takes seconds to optimise random draws that run only once.
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    options = {"xla_backend_optimization_level": 0} if on_cpu else None
    return jax.jit(init, out_shardings=shardings, compiler_options=options)(*arguments)


def new_state(
    init: Callable[..., TrainState], layout: Tree, mesh: Mesh, *arguments: Any
) -> TrainState:
    """Makes the state of step 0 on the devices that hold it."""
    return born_sharded(
        init, state_shardings(jax.eval_shape(init, *arguments), layout, mesh), mesh, *arguments
    )
