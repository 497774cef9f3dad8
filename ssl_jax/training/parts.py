"""The parts of a run, as the training loop and evaluation read them; `build` makes them."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from ssl_jax.data.source import Source
from ssl_jax.inputs import Input
from ssl_jax.methods import Method
from ssl_jax.training.state import TrainState, abstract_state, new_state


@dataclasses.dataclass(frozen=True, kw_only=True)
class Computation:
    """What a run computes, without its data."""

    mesh: Mesh
    input: Input
    method: Method
    total_steps: int

    init: Callable[..., TrainState]
    """Makes step 0's state from `init_arguments`, under jit."""

    train_step: jax.stages.Wrapped
    """(state, batch) -> (state, metrics), jitted, with the state donated."""

    init_arguments: tuple[Any, ...] = ()

    @property
    def abstract_state(self) -> TrainState:
        """Shapes, dtypes and shardings of the state on this mesh."""
        return abstract_state(self.init, self.method.layout, self.mesh, *self.init_arguments)

    def new_state(self) -> TrainState:
        """Makes step 0's state on the devices that hold it."""
        return new_state(self.init, self.method.layout, self.mesh, *self.init_arguments)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parts(Computation):
    """Everything that a run is made of."""

    source: Source
    test: Source | None
    """Labelled examples for evaluation; None without them."""
