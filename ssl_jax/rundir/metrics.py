"""What a run tells about itself: metrics.jsonl, TensorBoard events, one progress line."""

import datetime
import json
import math
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

from absl import logging
from etils import epath

from ssl_jax.errors import IO_ERROR, Fault
from ssl_jax.rundir import workdir

FILE = "metrics.jsonl"
SHOWN = {
    "loss": "loss {:.4f}",
    "accuracy": "accuracy {:.1%}",
    "contrastive_accuracy": "contrastive accuracy {:.1%}",
    "probe_accuracy": "probe accuracy {:.1%}",
    "lr": "lr {:.3g}",
    "effective_rank": "rank {:.0f}",
    "target_distance": "target distance {:.3g}",
    "noise_scale": "noise scale {:.3g}",
}


class MetricWriter:
    """Writes metrics.jsonl, which is complete, and TensorBoard events, which are a convenience.

    A line is one JSON object, {"step": 400, "loss": 4.2, ...}; what is not finite is null. A
    TensorBoard that is missing or breaks costs one warning, never the run.

    Args:
      folder: the workdir.
      resume_step: lines of later steps, written by a run that died after its last checkpoint, and
        a last line cut short are dropped; the log then reads as that of an unbroken run (but for
        `NoiseScale`, which begins anew).
      is_main: False on all processes but 0, which then write nothing.
      tensorboard: write events too; the import of TensorFlow takes seconds.

    Raises:
      Fault: IO_ERROR, here and from the methods, when metrics.jsonl cannot be written.
    """

    def __init__(
        self,
        folder: epath.PathLike,
        *,
        resume_step: int = 0,
        is_main: bool = True,
        tensorboard: bool = True,
    ):
        self._path = epath.Path(folder) / FILE
        self._file: Any = None
        self._tensorboard: Any = None
        if is_main:
            try:
                _drop_after(self._path, resume_step)
                self._file = self._path.open("a")
            except OSError as error:
                raise self._fault(error) from error
        if is_main and tensorboard:
            self._tensorboard = self._attempt(lambda: _summary_writer(folder))

    def __enter__(self) -> "MetricWriter":
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Logs scalars (numbers or arrays []) of a step; the line is in the file on return."""
        if self._file is None:
            return
        values = {name: float(value) for name, value in metrics.items()}
        finite = {n: v if math.isfinite(v) else None for n, v in values.items()}
        try:
            self._file.write(json.dumps({"step": step} | finite) + "\n")
            self._file.flush()
        except OSError as error:
            raise self._fault(error) from error
        if self._tensorboard is not None:
            self._attempt(lambda: self._tensorboard.write_scalars(step, values))

    def close(self) -> None:
        """Closes both files."""
        if self._tensorboard is not None:
            self._attempt(self._tensorboard.close)
        file, self._file, self._tensorboard = self._file, None, None
        if file is not None:
            try:
                file.close()
            except OSError as error:  # of a line that could not be written before
                raise self._fault(error) from error

    def _attempt(self, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except Exception as error:  # TensorFlow's errors have no common base but this
            reason = str(error).strip().split("\n")[0] or type(error).__name__
            logging.warning("no more TensorBoard events: %s; %s goes on", reason, FILE)
            self._tensorboard = None
            return None

    def _fault(self, error: OSError) -> Fault:
        return Fault(f"cannot write {self._path}: {error.strerror or error}", IO_ERROR)


def _summary_writer(folder: epath.PathLike) -> Any:
    from clu import metric_writers

    return metric_writers.SummaryWriter(os.fspath(folder))


def _drop_after(path: epath.Path, step: int) -> None:
    if not path.exists():
        return
    lines = path.read_text().splitlines(keepends=True)
    kept = [line for line in lines if _step_of(line) <= step]
    if kept != lines:
        workdir.write_text(path, "".join(kept))


def _step_of(line: str) -> float:
    """The step of a line; infinity for a line cut short, or anything else than a record."""
    try:
        return json.loads(line)["step"] if line.endswith("\n") else math.inf
    except (ValueError, KeyError, TypeError):
        return math.inf


class Progress:
    """Makes the progress line, and the rates in it.

    The first line has no rates, since what came before it is mostly compilation.

    Args:
      total_steps, start_step: of the run; the step it was resumed at.
      batch_size: global, in images.
      epoch_size: images of one epoch.
      clock: seconds, monotonic.
    """

    def __init__(
        self,
        *,
        total_steps: int,
        start_step: int,
        batch_size: int,
        epoch_size: int,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._total, self._batch, self._epoch = total_steps, batch_size, epoch_size
        self._clock = clock
        self._first: tuple[int, float] | None = None
        self._last = (start_step, clock())

    def __call__(self, step: int, metrics: Mapping[str, Any]) -> tuple[str, dict[str, float]]:
        """Returns the line, and {"epoch": ..., "images_per_second": ...} once that is known.

        The speed is that since the line before; the time left goes by all lines so far.
        """
        now = self._clock()
        rates = {"epoch": step * self._batch / self._epoch}
        parts = [f"step {step}/{self._total}", f"epoch {rates['epoch']:.2f}"]
        parts += [_shown(name, metrics) for name in SHOWN if name in metrics]
        if self._first is None:
            self._first = (step, now)
        elif step > self._last[0] and now > self._last[1]:
            speed = (step - self._last[0]) / (now - self._last[1])
            rates["images_per_second"] = speed * self._batch
            per_step = (now - self._first[1]) / (step - self._first[0])
            left = datetime.timedelta(seconds=round((self._total - step) * per_step))
            parts += [f"{rates['images_per_second']:,.0f} images/s", f"{left} left"]
        self._last = (step, now)
        return "  ".join(parts), rates


def _shown(name: str, metrics: Mapping[str, Any]) -> str:
    text = SHOWN[name].format(float(metrics[name]))
    if name == "contrastive_accuracy" and "contrastive_chance" in metrics:
        text += f" (chance {100 * float(metrics['contrastive_chance']):.2g}%)"
    return text


class NoiseScale:
    """The gradient noise scale, in images: from about this batch on, a larger one saves few steps.

    The ratio of exponentially weighted means over the steps since the run was started or resumed;
    one step's ratio would be biased and wild.

    Source: McCandlish et al. (arXiv 1812.06162), equation 2.9 and appendix A.1.
    """

    DECAY = 0.99

    def __init__(self) -> None:
        self._noise = self._signal = 0.0

    def __call__(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """{"noise_scale": ...} from a step's "gradient_noise" and "gradient_signal"; {} without
        these, which only micro-batches give, and while no signal is found."""
        if "gradient_noise" not in metrics:
            return {}
        self._noise += (1 - self.DECAY) * (metrics["gradient_noise"] - self._noise)
        self._signal += (1 - self.DECAY) * (metrics["gradient_signal"] - self._signal)
        return {"noise_scale": self._noise / self._signal} if self._signal > 0 else {}
