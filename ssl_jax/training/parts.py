"""The parts of a run that the training loop and evaluation use; `build` makes them."""

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
    """The parts of a run without its data."""

    mesh: Mesh
    input: Input
    method: Method
    total_steps: int

    init: Callable[..., TrainState]
    """Makes the state of step 0 from `init_arguments`, under jit."""

    train_step: jax.stages.Wrapped
    """(state, batch) -> (state, metrics), jitted, with the state donated."""

    init_arguments: tuple[Any, ...] = ()

    @property
    def abstract_state(self) -> TrainState:
        """Shapes, dtypes and shardings of the state on this mesh."""
        return abstract_state(self.init, self.method.layout, self.mesh, *self.init_arguments)

    def new_state(self) -> TrainState:
        """Makes the state of step 0 on the devices that hold it."""
        return new_state(self.init, self.method.layout, self.mesh, *self.init_arguments)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parts(Computation):
    """All parts of a run."""

    source: Source
    """Training examples."""

    test: Source | None
    """Labelled examples for evaluation; None if there are none."""

    unlabelled_test: Source | None = None
    """Examples for evaluation without labels; see `components.open_unlabelled_test`."""
