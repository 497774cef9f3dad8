"""Stops a run whose numbers are not finite, and writes down what is known about the step."""

import contextlib
import math
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from ssl_jax import parallel
from ssl_jax.errors import NUMERIC, Fault
from ssl_jax.rundir import leaves
from ssl_jax.rundir.checkpoint import Checkpoints
from ssl_jax.rundir.workdir import Workdir
from ssl_jax.training.parts import Parts
from ssl_jax.training.state import TrainState

SHOWN = 20  # names of arrays in the report


class FiniteGuard:
    """Checks the metrics of every step, and the state of every step that will be saved.

    The state has a program of its own: inside the training step, the check would change how XLA
    fuses the update, and so its rounding.

    Args:
      run: the workdir. Each process writes its report to nonfinite.json or nonfinite_PROCESS.json.
      parts: parts of the run.
      checkpoints: checkpoints of the run; a message names the last one.
    """

    def __init__(self, run: Workdir, parts: Parts, checkpoints: Checkpoints) -> None:
        self._run, self._parts, self._checkpoints = run, parts, checkpoints
        self._finite = jax.jit(each_finite, out_shardings=parallel.replicated(parts.mesh))
        self._state: Any = None
        self._examples: dict[int, np.ndarray] = {}  # of the last two steps
        self._metrics: dict[int, dict[str, float]] = {}  # of the last checked step

    def add(self, step: int, examples: np.ndarray, state: TrainState) -> None:
        """Stores what a report on this step needs.

        Args:
          step: number of updates done.
          examples: int [b], this process's rows of the batch's "index".
          state: state after the step.
        """
        previous = self._examples.get(step - 1)
        self._examples = {step: examples} | ({} if previous is None else {step - 1: previous})
        self._state = state

    def check_metrics(self, step: int, metrics: dict[str, float]) -> None:
        """Checks the loss and the norm of the gradient.

        Raises:
          Fault: NUMERIC if one of them is not finite.
        """
        self._metrics = {step: metrics}
        loss, norm = metrics["loss"], metrics["grad_norm"]
        if not (math.isfinite(loss) and math.isfinite(norm)):
            what = f"loss {loss}, gradient norm {norm} at step {step}"
            self._stop(step, what, self._nonfinite_arrays())

    def check_state(self, step: int) -> None:
        """Checks all floating-point arrays of the state of the step that was added last.

        Raises:
          Fault: NUMERIC if a number is not finite.
        """
        if names := self._nonfinite_arrays():
            self._stop(step, f"the state after step {step} is not finite: {names[0]}", names)

    def _nonfinite_arrays(self) -> list[str]:
        arrays = {
            "/".join(path): array
            for path, array in leaves.flatten(self._state).items()
            if jnp.issubdtype(array.dtype, jnp.inexact)
        }
        finite = jax.device_get(self._finite(list(arrays.values())))
        return [name for name, ok in zip(arrays, finite, strict=True) if not ok]

    def _stop(self, step: int, what: str, names: list[str]) -> NoReturn:
        with contextlib.suppress(Fault):
            self._checkpoints.wait()
        good = self._checkpoints.latest_step()
        raise Fault(
            f"{what}. "
            + (f"The last good checkpoint is step {good}. " if good else "")
            + f"Examples and arrays of the step: {self._write_report(step, names)}. "
            "The same command reaches the same step again. Continue with a lower rate by "
            "--allow_change=optim.lr --config.optim.lr=..., or start anew with a longer "
            "optim.warmup_epochs or a higher method.temperature",
            NUMERIC,
        )

    def _write_report(self, step: int, names: list[str]) -> str:
        """Writes the report of a step, and returns its path or why it cannot be written."""
        process = jax.process_index()
        report = {
            "step": step,
            "metrics": {
                name: value if math.isfinite(value) else str(value)
                for name, value in self._metrics.get(step, {}).items()
            },
            "examples": [
                {"index": int(i), "name": self._parts.source.describe(int(i))}
                for i in self._examples.get(step, ())
            ],
            # The state may be that of the step after, because metrics are read one step late.
            "state_after_step": max(self._examples),
            "nonfinite_arrays": names[:SHOWN],
            "nonfinite_arrays_total": len(names),
        }
        name = f"nonfinite_{process}.json" if process else "nonfinite.json"
        try:
            self._run.write_json(name, report)
        except OSError as error:
            return f"not written, {error}"
        return str(self._run.path / name)


def each_finite(arrays: list[jax.Array]) -> jax.Array:
    """Returns for each array whether all its numbers are finite; bool [len(arrays)]."""
    return jnp.stack([jnp.isfinite(array).all() for array in arrays])
