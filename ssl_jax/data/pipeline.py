"""Which examples are in which batch, and the way from their bytes to arrays, on tf.data.

Global batch k takes the positions [k·B, (k+1)·B) of one endless sequence: position g is place
g % N of epoch g // N, and the place names an example through `order.shuffle`. So every example
comes exactly once in an epoch, an epoch's tail shares a batch with the next one's head (such a
batch may hold an example twice), any step is reached at once, and each host reads its own rows.
"""

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
    """Returns the smallest number of steps in which every example comes `epochs` times."""
    return math.ceil(epochs * size / batch_size)


class Batches(Iterator[dict[str, np.ndarray]]):
    """An iterator of batches that raises what went wrong with a row instead of returning it.

    Attributes:
      bad: index -> reason, of every unreadable example met so far (quarantine only).
    """

    def __init__(self, dataset: Any, loader: Loader):
        self._loader = loader
        self._iterators = [dataset.as_numpy_iterator()]
        self.bad = loader.bad
        # At the end of the program too: TensorFlow's threads call Python, and a program whose
        # interpreter ends while they still do hangs for ever, now and then.
        self._finalizer = weakref.finalize(self, self._iterators.clear)

    def __next__(self) -> dict[str, np.ndarray]:
        if not self._iterators:
            raise StopIteration
        batch = next(self._iterators[0])
        self._loader.raise_first(batch.pop("failure"))
        return batch

    def close(self) -> None:
        """Stops the threads that read ahead, and with them the iteration."""
        self._finalizer()


def rows(
    step: int, *, size: int, batch_size: int, seed: int, host: tuple[int, int] = (0, 1)
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (epoch, index), int64 [b] each: this host's rows of global batch `step`."""
    process, processes = host
    b = batch_size // processes
    g = np.int64(step) * batch_size + process * b + np.arange(b, dtype=np.int64)
    epoch = g // size
    return epoch, order.shuffle(g % size, seed=seed, epoch=epoch, size=size)


def check_size(source: Source, batch_size: int) -> None:
    """Raises Fault if the source has fewer examples than one batch."""
    if source.size < batch_size:
        raise Fault(
            f"{source.size} examples < batch {batch_size} in {source.name}: choose a batch_size of "
            "at most the number of examples, or more data.",
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
      batch_size: of the global batch.
      seed: with the epoch it determines the order.
      start_step: first step.
      num_steps: length of the whole run, not of the rest of it.
      host: (process, number of processes); each gets its own batch_size / processes rows.
      on_bad_example: "stop" raises at an unreadable example; "quarantine" puts the next readable
        example in its place (its record, label and index, under the random decisions of the
        missing one), logs each bad example once and collects it in `Batches.bad`.
      max_bad: largest fraction of unreadable examples that quarantine tolerates.

    Returns:
      An iterator of dicts: the arrays of `example_input.shipped`, "index" int64 [b] and "label"
      int32 [b].

    Raises:
      Fault: the source has fewer examples than one batch, or (from the iterator) an example is
        unreadable (65); batch_size does not divide by the number of hosts, or the source's records
        are not those of the input (78).
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
    """Returns the batches of one pass in the order of the index, as evaluation arrays.

    Args:
      source: the examples.
      example_input: turns a record into its evaluation arrays.
      batch_size: of the global batch.
      host: (process, number of processes); all get the same number of batches.
      indices: which examples, in this order; all by default.
      on_bad_example: "stop" raises at an unreadable example; "quarantine" masks its row.
      max_bad: largest fraction of unreadable examples that quarantine tolerates.

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
    chosen = np.arange(source.size) if indices is None else np.asarray(indices)
    batches = -(-len(chosen) // batch_size)
    padded = np.full(batches * batch_size, -1, np.int64)
    padded[: len(chosen)] = chosen
    own = padded.reshape(batches, host[1], batch_size // host[1])[:, host[0]].reshape(-1)

    def example(index: Any) -> dict[str, Any]:
        load = loader.load_or_mask
        record, label, mask, failure = _call(tf, load, index, example_input, tf.bool)
        arrays = tf.nest.map_structure(
            lambda x: tf.where(mask, x, tf.zeros_like(x)), example_input.evaluate(record)
        )
        return {"input": arrays, "index": index, "label": label, "mask": mask, "failure": failure}

    dataset = tf.data.Dataset.from_tensor_slices(own)
    return Batches(_run(tf, dataset, example, batch_size // host[1]), loader)


def _loader(source: Source, example_input: Input, on_bad_example: str, max_bad: float) -> Loader:
    wanted, given = _plain(example_input.record), _plain(source.record)
    if wanted != given:
        raise Fault(
            f"{source.name} has records {given}, but this config's input takes {wanted}. Choose a "
            "source of the same modality, or correct the fields of config.data and config.augment",
            BAD_CONFIG,
        )
    quarantine = on_bad_example == "quarantine"
    return Loader(source, example_input.record, quarantine=quarantine, max_bad=max_bad)


def _plain(spec: Any) -> dict[str, tuple[str, tuple[int | None, ...]]]:
    return {name: (np.dtype(dtype).name, tuple(shape)) for name, (dtype, shape) in spec.items()}


def _call(
    tf: Any, load: Callable, index: Any, example_input: Input, third: Any
) -> tuple[dict[str, Any], Any, Any, Any]:
    """Calls one of the loader's two functions from a TensorFlow graph.

    Returns (record, label, third output, failure).
    """
    spec = example_input.record
    dtypes = [tf.as_dtype(dtype) for dtype, _ in spec.values()]
    outputs = tf.numpy_function(load, [index], [*dtypes, tf.int32, third, tf.int64])
    shapes = [*(shape for _, shape in spec.values()), (), (), ()]
    for output, shape in zip(outputs, shapes, strict=True):
        output.set_shape(shape)
    record = dict(zip(spec, outputs, strict=False))
    return record, *outputs[len(spec) :]


def _run(tf: Any, dataset: Any, example: Callable, b: int) -> Any:
    """Maps, batches and reads ahead, in a fixed order, on as many threads as there are cores."""
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
        near = [n for n in (below, below + processes) if n]
        raise Fault(
            f"batch_size {batch_size} does not divide by {processes} processes; nearest that do: "
            f"{', '.join(map(str, near))}",
            BAD_CONFIG,
        )


def _tensorflow() -> Any:
    """Imports TensorFlow without a claim on the accelerators' memory."""
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")
    return tf
