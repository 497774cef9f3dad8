"""Decides which examples form which batch, and loads them as arrays by tf.data.

Global batch k takes the positions [k·B, (k+1)·B) of one endless sequence. Position g is place
g % N of epoch g // N, and `order.shuffle` maps the place to an example. Therefore:

* Every example occurs exactly once per epoch.
* The end of an epoch shares a batch with the start of the next epoch. Such a batch may hold an
  example twice.
* Starting at any step costs nothing, and each host reads only its rows.
"""

import fractions
import math
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np

from ssl_jax.data import order
from ssl_jax.data.loader import Loader
from ssl_jax.data.source import Source
from ssl_jax.errors import BAD_CONFIG, BAD_DATA, Fault
from ssl_jax.inputs import Input
from ssl_jax.jobs.cores import usable_cores

OnBadExample = Literal["stop", "quarantine"]
_PREFETCH = 2  # batches


def total_steps(size: int, batch_size: int, epochs: float) -> int:
    """Returns the smallest number of steps in which every example occurs `epochs` times."""
    return math.ceil(exact_steps(size, batch_size, epochs))


def exact_steps(size: int, batch_size: int, epochs: float) -> fractions.Fraction:
    """Returns the steps in a number of epochs, with `epochs` as the decimal number that users read.

    As floats, 1.1 epochs of 50,000 examples at batch 500 are more than 110 steps.
    """
    return fractions.Fraction(str(epochs)) * size / batch_size


class Batches(Iterator[dict[str, np.ndarray]]):
    """Iterator of batches. If a row failed to load, it raises the row's exception.

    Attributes:
      bad: {index: reason} of the unreadable examples so far (quarantine only).
    """

    def __init__(self, dataset: Any, loader: Loader):
        self._loader = loader
        self._iterators = [dataset.as_numpy_iterator()]
        self.bad = loader.bad
        # Also runs when the program ends: TensorFlow's threads call Python, and if the interpreter
        # ends meanwhile, the process sometimes hangs.
        self._finalizer = weakref.finalize(self, self._iterators.clear)

    def __next__(self) -> dict[str, np.ndarray]:
        if not self._iterators:
            raise StopIteration
        try:
            batch = next(self._iterators[0])
        except StopIteration:
            raise
        except Exception:
            # The input may reject the stand-in of a record that could not be read.
            self._loader.raise_any()
            raise
        self._loader.raise_first(batch.pop("failure"))
        return batch

    def close(self) -> None:
        """Stops the threads that read ahead, and ends the iteration."""
        self._finalizer()


def rows(
    step: int, *, size: int, batch_size: int, seed: int, host: tuple[int, int] = (0, 1)
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (epoch, index) of this host's rows of global batch `step`, int64 [b] each."""
    process, processes = host
    b = batch_size // processes
    g = np.int64(step) * batch_size + process * b + np.arange(b, dtype=np.int64)
    epoch = g // size
    return epoch, order.shuffle(g % size, seed=seed, epoch=epoch, size=size)


def check_size(source: Source, batch_size: int) -> None:
    """Raises Fault if the source has fewer examples than one batch."""
    if source.size < batch_size:
        fits = 2 ** (source.size.bit_length() - 1)  # a power of two divides over most devices
        raise Fault(
            f"{source.size} examples < batch {batch_size} in {source.name}. Pass "
            f"--config.train.batch_size={fits}, or add data.",
            BAD_DATA,
        )


def train_batches(
    source: Source,
    example_input: Input,
    *,
    batch_size: int,
    seed: int,
    start_step: int,
    num_steps: int,
    host: tuple[int, int] = (0, 1),
    on_bad_example: OnBadExample = "stop",
    max_bad: float = 0.001,
) -> Batches:
    """Returns the batches of steps start_step, ..., num_steps - 1 of a run of `num_steps` steps.

    Args:
      source: the examples.
      example_input: turns a record into the arrays that are shipped to the device.
      batch_size: size of the global batch.
      seed: seed of the run; seed and epoch determine the order.
      start_step: first step.
      num_steps: length of the whole run, counted from step 0.
      host: (process, number of processes); each process gets batch_size / processes rows.
      on_bad_example: "stop" raises at an unreadable example. "quarantine" replaces it by the next
        readable example: record, label and index are those of the replacement, random decisions
        are those of the unreadable one. Each bad example is logged once and added to `Batches.bad`.
      max_bad: largest fraction of unreadable examples that quarantine tolerates; see
        `loader.tolerated`.

    Returns:
      An iterator of dicts: the arrays of `example_input.shipped`, "index" int64 [b] and "label"
      int32 [b].

    Raises:
      Fault: the source has fewer examples than one batch, or (from the iterator) an example is
        unreadable (65); batch_size is not divisible by the number of processes, or the source's
        records do not fit the input (78).
    """
    tf = _tensorflow()
    _check_hosts(batch_size, host)
    check_size(source, batch_size)
    loader = _loader(source, example_input, on_bad_example, max_bad)

    def plan(step: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return rows(int(step), size=source.size, batch_size=batch_size, seed=seed, host=host)

    def example(epoch: Any, index: Any) -> dict[str, Any]:
        load = loader.load_or_replace
        record, label, used, failure = _call(tf, load, index, example_input, tf.int64)
        arrays = example_input.host(record, epoch, index)
        return {**arrays, "index": used, "label": label, "failure": failure}

    dataset = tf.data.Dataset.range(start_step, num_steps)
    dataset = dataset.map(lambda step: tf.numpy_function(plan, [step], [tf.int64, tf.int64]))
    return Batches(_run(tf, dataset.unbatch(), example, batch_size // host[1]), loader)


def eval_batches(
    source: Source,
    example_input: Input,
    *,
    batch_size: int,
    host: tuple[int, int] = (0, 1),
    indices: Sequence[int] | np.ndarray | None = None,
    on_bad_example: OnBadExample = "stop",
    max_bad: float = 0.001,
) -> Batches:
    """Returns the batches of one pass in index order, as evaluation arrays.

    Args:
      source: the examples.
      example_input: turns a record into its evaluation arrays.
      batch_size: size of the global batch.
      host: (process, number of processes); all processes get the same number of batches.
      indices: indices of the examples, in this order; all examples by default.
      on_bad_example: "stop" raises at an unreadable example; "quarantine" masks its row.
      max_bad: largest fraction of unreadable examples that quarantine tolerates; see
        `loader.tolerated`.

    Returns:
      An iterator of {"input": `example_input.evaluated` with a batch axis, "index" int64 [b],
      "label" int32 [b], "mask" bool [b]}; the last batch is padded with zeros, index and label -1,
      mask False.

    Raises:
      Fault: as `train_batches`.
    """
    tf = _tensorflow()
    _check_hosts(batch_size, host)
    loader = _loader(source, example_input, on_bad_example, max_bad)
    selected = np.arange(source.size) if indices is None else np.asarray(indices)
    batches = -(-len(selected) // batch_size)
    padded = np.full(batches * batch_size, -1, np.int64)
    padded[: len(selected)] = selected
    host_rows = padded.reshape(batches, host[1], batch_size // host[1])[:, host[0]].reshape(-1)

    def example(index: Any) -> dict[str, Any]:
        load = loader.load_or_mask
        record, label, mask, failure = _call(tf, load, index, example_input, tf.bool)
        arrays = tf.nest.map_structure(
            lambda x: tf.where(mask, x, tf.zeros_like(x)), example_input.evaluate(record)
        )
        return {"input": arrays, "index": index, "label": label, "mask": mask, "failure": failure}

    dataset = tf.data.Dataset.from_tensor_slices(host_rows)
    return Batches(_run(tf, dataset, example, batch_size // host[1]), loader)


def _loader(source: Source, example_input: Input, on_bad_example: str, max_bad: float) -> Loader:
    expected, actual = _comparable(example_input.record), _comparable(source.record)
    if expected != actual:
        raise Fault(
            f"{source.name} has records {actual}, but this config's input takes {expected}. Choose "
            "a source of the same modality, or correct the fields of config.data and "
            "config.augment",
            BAD_CONFIG,
        )
    quarantine = on_bad_example == "quarantine"
    return Loader(source, example_input.record, quarantine=quarantine, max_bad=max_bad)


def _comparable(spec: Any) -> dict[str, tuple[str, tuple[int | None, ...]]]:
    """Returns {name: (name of the dtype, shape)} of a record's arrays."""
    return {name: (np.dtype(dtype).name, tuple(shape)) for name, (dtype, shape) in spec.items()}


def _call(
    tf: Any, load: Callable, index: Any, example_input: Input, index_or_mask: Any
) -> tuple[dict[str, Any], Any, Any, Any]:
    """Calls `Loader.load_or_replace` or `Loader.load_or_mask` from a TensorFlow graph.

    Args:
      index_or_mask: dtype of the function's output after the label.

    Returns:
      (record, label, index or mask, failure).
    """
    spec = example_input.record
    dtypes = [tf.as_dtype(dtype) for dtype, _ in spec.values()]
    outputs = tf.numpy_function(load, [index], [*dtypes, tf.int32, index_or_mask, tf.int64])
    shapes = [*(shape for _, shape in spec.values()), (), (), ()]
    for output, shape in zip(outputs, shapes, strict=True):
        output.set_shape(shape)
    record = dict(zip(spec, outputs, strict=False))
    return record, *outputs[len(spec) :]


def _run(tf: Any, dataset: Any, example: Callable, b: int) -> Any:
    """Maps, batches and prefetches in a fixed order, with one thread per usable core."""
    cores = usable_cores()
    options = tf.data.Options()
    options.deterministic = True
    options.autotune.enabled = False
    options.threading.private_threadpool_size = cores
    options.threading.max_intra_op_parallelism = 1
    dataset = dataset.map(example, num_parallel_calls=cores, deterministic=True)
    return dataset.batch(b, drop_remainder=True).prefetch(_PREFETCH).with_options(options)


def _check_hosts(batch_size: int, host: tuple[int, int]) -> None:
    processes = host[1]
    if batch_size % processes:
        below = batch_size // processes * processes
        nearest = [n for n in (below, below + processes) if n]
        raise Fault(
            f"batch_size {batch_size} is not divisible by {processes} processes; nearest valid "
            f"sizes: {', '.join(map(str, nearest))}",
            BAD_CONFIG,
        )


def _tensorflow() -> Any:
    """Imports TensorFlow and hides the GPUs from it, so that it reserves none of their memory."""
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")
    return tf
