"""Metrics of a run: metrics.jsonl, TensorBoard events, and the progress line."""

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
from ssl_jax.jobs import files, json_files

FILE = "metrics.jsonl"
# Metrics in the progress line, in this order, and their formats.
PROGRESS_FORMATS = {
    "loss": "loss {:.4f}",
    "accuracy": "accuracy {:.1%}",
    "contrastive_accuracy": "contrastive accuracy {:.1%}",
    "pretext_accuracy": "pretext accuracy {:.1%}",
    "pretext_error": "pretext error {:.3g}",
    "reconstruction_error": "reconstruction error {:.3g}",
    "probe_accuracy": "probe accuracy {:.1%}",
    "lr": "lr {:.3g}",
    "effective_rank": "rank {:.0f}",
    "target_distance": "target distance {:.3g}",
    "noise_scale": "noise scale {:.3g}",
}
# Metric -> metric with the value of a guess. A method that logs the first also logs the second.
CHANCE = {
    "contrastive_accuracy": "contrastive_chance",
    "pretext_accuracy": "pretext_chance",
    "pretext_error": "pretext_error_chance",
    "reconstruction_error": "reconstruction_chance",
}


class MetricWriter:
    """Writes all metrics to metrics.jsonl and, for convenience, to TensorBoard events.

    Each line of metrics.jsonl is one JSON object, {"step": 400, "loss": 4.2, ...}. Values that
    are not finite become null. If TensorBoard is missing or fails, the writer logs one warning
    and continues without it.

    Args:
      folder: the workdir.
      resume_step: step at which the run resumes, 0 for a new run. Lines of later steps and a
        truncated last line, left by a killed run, are removed. The file then equals that of an
        uninterrupted run, except for "noise_scale", whose means start again on resume.
      is_main: False on every process except process 0; such a writer writes nothing.
      tensorboard: also write TensorBoard events. Importing TensorFlow takes seconds.

    Raises:
      Fault: IO_ERROR, from the constructor and every method, if metrics.jsonl cannot be written.
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
                self._file = files.append(self._path)
            except OSError as error:
                raise self._fault(error) from error
        if is_main and tensorboard:
            self._tensorboard = self._try_tensorboard(lambda: _summary_writer(folder))

    def __enter__(self) -> "MetricWriter":
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Writes the metrics of one step; the line is in the file when this method returns.

        Args:
          step: number of updates done.
          metrics: name -> scalar, a number or an array [].
        """
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
            self._try_tensorboard(lambda: self._tensorboard.write_scalars(step, values))

    def close(self) -> None:
        """Closes both files."""
        if self._tensorboard is not None:
            self._try_tensorboard(self._tensorboard.close)
        file, self._file, self._tensorboard = self._file, None, None
        if file is not None:
            try:
                file.close()
            except OSError as error:  # a line still in the buffer could not be written
                raise self._fault(error) from error

    def _try_tensorboard(self, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except Exception as error:  # TensorFlow's errors have no narrower base class
            reason = str(error).strip().split("\n")[0] or type(error).__name__
            logging.warning("TensorBoard events stop: %s; %s continues", reason, FILE)
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
    lines = files.read(path).splitlines(keepends=True)
    remaining = [line for line in lines if parse_step(line) <= step]
    if remaining != lines:
        files.write(path, b"".join(remaining))


def parse_step(line: bytes) -> float:
    """Returns the step of a line; infinity for a truncated line or one that is not a record."""
    row = parse_row(line) if line.endswith(b"\n") else {}
    return row.get("step", math.inf)


def parse_row(line: bytes) -> dict[str, Any]:
    """Returns a line of metrics.jsonl; {} if it is no record.

    "step" is an integer; every other value is a number, or None if it is null or damaged.
    """
    try:
        row = json_files.parse(line)
    except ValueError:
        return {}
    row = row if isinstance(row, dict) else {}
    row = {name: value if json_files.is_number(value) else None for name, value in row.items()}
    return row if isinstance(row.get("step"), int) else {}


class Progress:
    """Formats the progress line and computes the rates in it.

    The first line has no rates, because most of the time before it is compilation.

    Args:
      total_steps: number of updates of the run.
      start_step: step at which the run starts or resumes.
      batch_size: images in the global batch.
      epoch_size: images in one epoch.
      clock: monotonic clock, in seconds.
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
        """Returns (progress line, rates) of a step.

        The rates are "epoch" and, from the second line on, "images_per_second" since the previous
        line. The time left is estimated from all lines since the first.
        """
        now = self._clock()
        rates = {"epoch": step * self._batch / self._epoch}
        parts = [f"step {step}/{self._total}", f"epoch {rates['epoch']:.2f}"]
        parts += [_format(name, metrics) for name in PROGRESS_FORMATS if name in metrics]
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


def _format(name: str, metrics: Mapping[str, Any]) -> str:
    text = PROGRESS_FORMATS[name].format(float(metrics[name]))
    guess = CHANCE.get(name, "")
    if guess in metrics:
        value = float(metrics[guess])
        digits = ".2g" if value < 0.01 else ".3g"
        text += f" (chance {100 * value:{digits}}%)" if "%" in text else f" (chance {value:.3g})"
    return text


class NoiseScale:
    """Tracks the gradient noise scale, in images.

    Batches larger than the noise scale save few steps. The noise scale is the ratio of two
    exponentially weighted means over the steps since the run started or resumed. The ratio at a
    single step would be biased and noisy.

    Source: McCandlish et al. (arXiv 1812.06162), equation 2.9 and appendix A.1.
    """

    DECAY = 0.99

    def __init__(self) -> None:
        self._noise = self._signal = 0.0

    def __call__(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Returns {"noise_scale": images} from "gradient_noise" and "gradient_signal" of a step.

        Returns {} without these two metrics, which only micro-batched steps compute, and while the
        mean signal is not positive.
        """
        if "gradient_noise" not in metrics:
            return {}
        self._noise += (1 - self.DECAY) * (metrics["gradient_noise"] - self._noise)
        self._signal += (1 - self.DECAY) * (metrics["gradient_signal"] - self._signal)
        return {"noise_scale": self._noise / self._signal} if self._signal > 0 else {}
