"""The prediction beside the truth: the compiled step, run on this machine's own devices."""

import resource
import sys
import time
from typing import Any, NamedTuple

import jax
import numpy as np

STEPS = 5  # timed, after as many as it takes to warm
WARM = 2


class Checked(NamedTuple):
    """What a step took here.

    Attributes:
      step: seconds, the median of `steps`; `fastest` and `slowest` of them.
      memory: bytes of one device at most; of a CPU, what the process grew by, divided.
    """

    step: float
    fastest: float
    slowest: float
    steps: int
    memory: int


def run(train_step: Any, state: Any, batch: Any) -> Checked:
    """Times a compiled, jitted step (state, batch) -> (state, metrics) that donates its state."""
    before = _process_bytes()
    for _ in range(WARM):
        state, metrics = train_step(state, batch)
        jax.block_until_ready(metrics)
    times = []
    for _ in range(STEPS):
        start = time.perf_counter()
        state, metrics = train_step(state, batch)
        jax.block_until_ready((state, metrics))
        times.append(time.perf_counter() - start)
    return Checked(float(np.median(times)), min(times), max(times), STEPS, _memory(before))


def random_batch(spec: Any) -> Any:
    """Arrays of the shapes, dtypes and shardings of `spec`; images and decisions are random."""
    random = np.random.default_rng(0)

    def array(like: Any) -> jax.Array:
        if np.issubdtype(like.dtype, np.floating):
            values = random.random(like.shape, np.float32).astype(like.dtype)
        else:
            values = random.integers(0, 10, like.shape).astype(like.dtype)
        return jax.device_put(values, like.sharding)

    return jax.tree.map(array, spec)


def _memory(before: int) -> int:
    stats = jax.local_devices()[0].memory_stats()
    if stats:
        return stats["peak_bytes_in_use"]
    return (_process_bytes() - before) // jax.local_device_count()


def _process_bytes() -> int:
    """The most memory that this process ever held."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
