"""Logs the start of a run and the metrics of its steps, one step late."""

import time
from collections.abc import Callable
from typing import Any

import jax
from ml_collections import ConfigDict

from ssl_jax.errors import count
from ssl_jax.rundir.collapse import CollapseDetector
from ssl_jax.rundir.metrics import MetricWriter, NoiseScale, Progress
from ssl_jax.training.parts import Parts


def start_line(config: ConfigDict, parts: Parts) -> str:
    """Returns one line that says what a run trains, on what, and for how long."""
    source, noun, batch_size = parts.source, parts.input.noun, config.train.batch_size
    about = [source.name] + [f"{size} px" for size in [config.augment.get("size", 0)] if size]
    classes = f" of {count(len(source.classes), 'class', 'classes')}" if source.classes else ""
    epochs = parts.total_steps * batch_size / source.size
    return (
        f"{config.method.name} with {config.model.name} on {count(source.size, noun)}{classes} "
        f"({', '.join(about)}): batch {batch_size:,} on {count(parts.mesh.size, 'device')}, "
        f"{count(parts.total_steps, 'step')} = {epochs:.3g} epochs"
    )


def resume_line(start: int, total: int) -> str:
    """Returns one line about a run that continues after `start` of `total` steps."""
    if start <= total:
        return f"resumed at step {start} of {total}"
    return (
        f"this run has already done {count(start, 'step')}, but the config asks for only "
        f"{total:,}: it trains no further. Evaluation and report are those of step {start}. For a "
        "shorter run, use another --workdir"
    )


def announced(train_step: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the jitted training step, which prints how long its first call compiles."""
    first = jax.process_index() == 0

    def step(*arguments: Any) -> Any:
        nonlocal first
        if not first:
            return train_step(*arguments)
        first, start = False, time.monotonic()
        print("compiling the training step …", flush=True)
        result = train_step(*arguments)
        print(f"compiled in {time.monotonic() - start:.1f} s", flush=True)
        return result

    return step


class StepLog:
    """Reads metrics one step late, so that the device never waits for the host.

    Args:
      config: config of the run.
      parts: parts of the run.
      writer: writes metrics.jsonl and TensorBoard events.
      check: called with every step and its metrics; raises a Fault if the run must stop.
      start: step from which this process trains.
    """

    def __init__(
        self,
        config: ConfigDict,
        parts: Parts,
        writer: MetricWriter,
        check: Callable[[int, dict[str, float]], None],
        start: int,
    ) -> None:
        self._every, self._total = config.train.log_every, parts.total_steps
        self._writer, self._check = writer, check
        self._progress = Progress(
            total_steps=self._total,
            start_step=start,
            batch_size=config.train.batch_size,
            epoch_size=parts.source.size,
        )
        self._noise_scale = NoiseScale()
        self._detector = CollapseDetector(total_steps=self._total)
        self._pending: tuple[int, Any] | None = None

    def add(self, step: int, metrics: Any) -> None:
        """Stores the metrics of a step, which may still be computed, and logs the step before it.

        Raises:
          Fault: as `settle`.
        """
        self.settle()
        self._pending = step, metrics

    def settle(self, more: Callable[[], dict[str, float]] | None = None) -> None:
        """Waits for the pending step, and logs it if `log_every` says so, or with `more`.

        Args:
          more: returns further metrics of the step; called after `check`.

        Raises:
          Fault: as `check`.
        """
        if self._pending is None:
            return
        (step, arrays), self._pending = self._pending, None
        metrics = {name: float(value) for name, value in jax.device_get(arrays).items()}
        self._check(step, metrics)
        metrics |= self._noise_scale(metrics)
        if more:
            metrics |= more()
        if step % self._every == 0 or step == self._total or more:
            line, rates = self._progress(step, metrics)
            self._writer.write(step, metrics | rates)
            warning = self._detector.check(step, metrics)
            if jax.process_index() == 0:
                print(line, *[f"warning: {warning}"] * bool(warning), sep="\n", flush=True)
