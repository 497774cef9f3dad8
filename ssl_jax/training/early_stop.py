"""Early stopping: ends a run whose accuracy by an online classifier no longer rises.

The labels of training examples decide only at which step the run ends. They change no parameter of
the method, and test examples decide nothing.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from ssl_jax.errors import count
from ssl_jax.training.state import TrainState

META = "early_stop"  # key of the numbers that are stored with every checkpoint
SCORE = "stopping_score"  # metric of the evaluations
NAMES = {"probe": "probe accuracy", "knn": "kNN accuracy"}


class EarlyStop:
    """Evaluates a score every few steps, and says when it has stopped rising.

    "probe" is the mean accuracy of the online probe over the steps since the last evaluation, each
    measured before the probe's update on a batch of augmented training images. "knn" is the
    accuracy of `evals.online_knn` on training images. Both are between 0 and 1.

    The decision depends only on numbers that every checkpoint holds, so a resumed run ends at the
    same step as an uninterrupted one. All processes use the score of process 0.

    Args:
      on: "probe" or "knn"; "" never stops a run.
      every: steps between two evaluations.
      patience: evaluations in a row without a new best score after which the run ends.
      saved: numbers of the checkpoint at which the run resumes, from `meta`; None without them.
        Numbers of another score or interval are ignored: the evaluations then begin anew.
      knn: state -> accuracy, for "knn".
    """

    def __init__(
        self,
        on: str,
        every: int,
        patience: int,
        saved: Any,
        knn: Callable[[TrainState], float] | None = None,
    ) -> None:
        self._on, self._every, self._patience, self._knn = on, every, patience, knn
        new = {"best": None, "best_step": 0, "without_best": 0, "sum": 0.0, "steps": 0}
        now = {"on": on, "every": every}
        same = bool(saved) and {name: saved.get(name) for name in now} == now
        self._numbers: dict[str, Any] = dict(saved) if same else now | new
        self._score = 0.0  # of the last evaluation of this process

    @property
    def meta(self) -> dict[str, Any]:
        """{META: numbers} to store with a checkpoint; {} if nothing is evaluated."""
        return {META: dict(self._numbers)} if self._on else {}

    @property
    def stopped(self) -> bool:
        """True if the run ends after the last evaluation."""
        return bool(self._on) and self._numbers["without_best"] >= self._patience

    def is_due(self, step: int) -> bool:
        """Tells whether the run is evaluated after a step."""
        return bool(self._on) and step % self._every == 0

    def add(self, metrics: Mapping[str, float]) -> None:
        """Adds the metrics of a step; call it once for every step, in order."""
        if self._on == "probe":
            self._numbers["sum"] += metrics["probe_accuracy"]
            self._numbers["steps"] += 1

    def evaluate(self, step: int, state: TrainState) -> dict[str, float]:
        """Evaluates the state after a step, and returns {SCORE: score}."""
        numbers = self._numbers
        if self._knn is None:
            score = numbers["sum"] / numbers["steps"]
            numbers |= {"sum": 0.0, "steps": 0}
        else:
            score = self._knn(state)
        score = _of_process_0(score)
        if numbers["best"] is None or score > numbers["best"]:
            numbers |= {"best": score, "best_step": step, "without_best": 0}
        else:
            numbers["without_best"] += 1
        self._score = score
        return {SCORE: score}

    def describe(self) -> str:
        """Returns one line about the last evaluation."""
        line = f"early stopping: {NAMES[self._on]} {self._score:.1%}, best {self._best_text()}"
        if waited := self._numbers["without_best"]:
            line += f", {waited} of {count(self._patience, 'evaluation')} without a new best"
        return line

    def reason(self, step: int, total: int) -> str:
        """Returns one sentence that says why the run ended after `step` of `total` steps."""
        return (
            f"stopped early at step {step:,} of {total:,}: the {NAMES[self._on]} has not risen "
            f"above {self._best_text()} in {count(self._numbers['without_best'], 'evaluation')}"
        )

    def _best_text(self) -> str:
        return f"{self._numbers['best']:.1%} (step {self._numbers['best_step']:,})"


def _of_process_0(score: float) -> float:
    """Returns the score of process 0, rounded to float32 on any number of processes."""
    value = np.float32(score)
    if jax.process_count() > 1:
        value = multihost_utils.broadcast_one_to_all(value)
    return float(value)
