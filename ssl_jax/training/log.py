"""Logs the metrics of training steps and stops a run whose loss is not finite."""

import math
from typing import Any

import jax
from ml_collections import ConfigDict

from ssl_jax.errors import NUMERIC, Fault
from ssl_jax.rundir.checkpoint import Checkpoints
from ssl_jax.rundir.collapse import CollapseDetector
from ssl_jax.rundir.metrics import MetricWriter, NoiseScale, Progress
from ssl_jax.training.parts import Parts


class StepLog:
    """Reads metrics one step late, so that the device never waits for the host.

    Args:
      config: config of the run.
      parts: parts of the run.
      writer: writes metrics.jsonl and TensorBoard events.
      checkpoints: checkpoints of the run; a message names the last one.
      start: step from which this process trains.
    """

    def __init__(
        self,
        config: ConfigDict,
        parts: Parts,
        writer: MetricWriter,
        checkpoints: Checkpoints,
        start: int,
    ) -> None:
        self._every, self._total = config.train.log_every, parts.total_steps
        self._writer, self._checkpoints = writer, checkpoints
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

    def settle(self) -> None:
        """Waits for the pending step, and logs it if `log_every` says so.

        Raises:
          Fault: the loss or the norm of the gradient is not finite.
        """
        if self._pending is None:
            return
        (step, arrays), self._pending = self._pending, None
        metrics = {name: float(value) for name, value in jax.device_get(arrays).items()}
        if not (math.isfinite(metrics["loss"]) and math.isfinite(metrics["grad_norm"])):
            self._checkpoints.wait()
            good = self._checkpoints.latest_step()
            raise Fault(
                f"loss {metrics['loss']}, gradient norm {metrics['grad_norm']} at step {step}. "
                + (f"The last good checkpoint is step {good}. " if good else "")
                + "The same command reaches the same step again. Continue with a lower rate by "
                "--allow_change=optim.lr --config.optim.lr=..., or start anew with a longer "
                "optim.warmup_epochs or a higher method.temperature",
                NUMERIC,
            )
        metrics |= self._noise_scale(metrics)
        if step % self._every == 0 or step == self._total:
            line, rates = self._progress(step, metrics)
            self._writer.write(step, metrics | rates)
            warning = self._detector.check(step, metrics)
            if jax.process_index() == 0:
                print(line, *[f"warning: {warning}"] * bool(warning), sep="\n", flush=True)
