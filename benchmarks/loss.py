"""Memory and time of NT-Xent and its gradient against other implementations, in one run.

    python -m benchmarks.loss --rows=32768 --devices=8
    python -m benchmarks.loss --rows=131072 --dtype=bfloat16 --topology=v5e:2x4

For each implementation and `rows` rows (two per image), prints the temporary memory on a device by
the compiler's analysis, and the median time of rounds that alternate between implementations. The
ratios are relative to "dense". With --topology it compiles for TPUs that are not attached, and
measures no time. --devices splits a CPU into that many devices.

dense     the whole similarity matrix, differentiated by JAX
chunks    1024 anchors at a time against all rows; each chunk is recomputed in the backward pass
optax     optax.losses.ntxent on one device; up to 2,048 rows, as it holds rows x rows x dim numbers
torch     the whole matrix in PyTorch, as in lightly on one process; only if torch is installed
gather, ring      ssl_jax.losses.nt_xent with each transport; by default it selects one of the two
"""

import os
import statistics
import time
from collections.abc import Callable
from typing import Any

from absl import app, flags

FLAGS = flags.FLAGS
ROUNDS, TEMPERATURE = 5, 0.1


def main(_: Any) -> None:
    """Runs the benchmark; see the module's docstring."""
    if FLAGS.topology:
        os.environ |= {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
    import jax

    if FLAGS.devices:
        jax.config.update("jax_num_cpu_devices", FLAGS.devices)
    devices = _described_devices(FLAGS.topology) if FLAGS.topology else jax.devices()
    print(f"{FLAGS.rows:,} rows of {FLAGS.dim}, {FLAGS.dtype}, {len(devices)} x {devices[0]}")
    losses = _implementations()
    if FLAGS.ways:
        losses = {name: loss for name, loss in losses.items() if name in FLAGS.ways}
    steps = {}
    for name, loss in losses.items():
        try:
            steps[name] = _compile(loss, devices)
        except Exception as error:  # a failed compilation is a result, whatever its type
            print(f"{name:8} does not compile: {str(error).splitlines()[0][:100]}")
    memory = {n: s.memory_analysis().temp_size_in_bytes / 2**20 for n, (s, _) in steps.items()}
    seconds = {} if FLAGS.topology else _median_seconds({n: run for n, (_, run) in steps.items()})
    for name, size in memory.items():
        line = f"{name:8} {size:10.1f} MiB"
        if name in seconds:
            line += f" {seconds[name]:9.3f} s"
        if "dense" in seconds:
            line += f" {seconds['dense'] / seconds[name]:6.2f} times as fast as dense"
        print(line)
    if not FLAGS.topology:
        _time_torch()


def _described_devices(topology: str) -> list[Any]:
    from jax.experimental import topologies

    return topologies.get_topology_desc(platform="tpu", topology_name=topology).devices


def _implementations() -> dict[str, Callable]:
    import jax
    import jax.numpy as jnp
    import optax

    from ssl_jax import losses

    def unit(z):
        rows = z.reshape(-1, z.shape[-1]).astype(jnp.float32)
        return (rows / jnp.linalg.norm(rows, axis=1, keepdims=True)).astype(z.dtype)

    def cross_entropy(anchors, first, rows):
        """Returns the sum over the anchors, which are the rows from `first` on."""
        logits = jnp.matmul(anchors, rows.T, preferred_element_type=jnp.float32) / TEMPERATURE
        i = first + jnp.arange(len(anchors))
        logits = jnp.where(i[:, None] == jnp.arange(len(rows))[None, :], -jnp.inf, logits)
        positive = jnp.take_along_axis(logits, (i ^ 1)[:, None], axis=1)[:, 0]
        return (jax.nn.logsumexp(logits, axis=1) - positive).sum()

    def dense(z):
        rows = unit(z)
        return cross_entropy(rows, 0, rows) / len(rows)

    def chunks(z, size=1024):
        mesh = jax.sharding.get_abstract_mesh()
        spec = jax.sharding.PartitionSpec(mesh.axis_names)

        def local(z):
            mine = unit(z)
            rows = jax.lax.all_gather(mine, mesh.axis_names, tiled=True)
            count = max(len(mine) // size, 1)
            starts = jax.lax.axis_index(mesh.axis_names) * len(mine)
            starts += jnp.arange(count) * (len(mine) // count)
            part = jax.checkpoint(lambda a, i: cross_entropy(a, i, rows))
            sums = jax.lax.map(lambda x: part(*x), (mine.reshape(count, -1, z.shape[-1]), starts))
            return jax.lax.psum(sums.sum(), mesh.axis_names) / len(rows)

        return jax.shard_map(local, in_specs=spec, out_specs=jax.sharding.PartitionSpec())(z)

    def by_optax(z):
        rows = z.reshape(-1, z.shape[-1])
        return optax.losses.ntxent(rows, jnp.arange(len(rows)) // 2, temperature=TEMPERATURE)

    def ours(transport):
        return lambda z: losses.nt_xent(z, temperature=TEMPERATURE, transport=transport)[0]

    implementations = {
        "dense": dense,
        "chunks": chunks,
        "gather": ours("gather"),
        "ring": ours("ring"),
    }
    return implementations | ({"optax": by_optax} if FLAGS.rows <= 2048 else {})


def _compile(loss: Callable, devices: list[Any]) -> tuple[Any, Callable[[], Any]]:
    """Returns the compiled loss and gradient, and a function that runs it once."""
    import jax
    import jax.numpy as jnp
    from jax.sharding import NamedSharding, PartitionSpec

    from ssl_jax import parallel

    mesh = parallel.make_mesh(devices)
    sharding = NamedSharding(mesh, PartitionSpec(parallel.DATA))
    shape = (FLAGS.rows // 2, 2, FLAGS.dim)
    spec = jax.ShapeDtypeStruct(shape, jnp.dtype(FLAGS.dtype), sharding=sharding)
    with jax.set_mesh(mesh):
        gradient = jax.jit(jax.value_and_grad(loss), out_shardings=(None, sharding))
        step = gradient.lower(spec).compile()
    if FLAGS.topology:
        return step, lambda: None
    z = jax.random.normal(jax.random.key(0), shape).astype(spec.dtype)
    z = jax.device_put(z, sharding)
    return step, lambda: jax.block_until_ready(step(z))


def _median_seconds(runs: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Returns the median seconds of each, in alternating rounds; the first round is not counted."""
    readings: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            readings[name].append(time.perf_counter() - start)
    return {name: statistics.median(times[1:]) for name, times in readings.items()}


def _time_torch() -> None:
    """Times the dense loss in PyTorch with its default number of threads, if it is installed."""
    try:
        import torch
    except ImportError:
        print("torch    not installed")
        return
    z = torch.randn(FLAGS.rows, FLAGS.dim, requires_grad=True)

    def run() -> None:
        rows = torch.nn.functional.normalize(z)
        logits = (rows @ rows.T / TEMPERATURE).fill_diagonal_(-torch.inf)
        torch.nn.functional.cross_entropy(logits, torch.arange(len(z)) ^ 1).backward()

    print(f"torch    {'':10}     {_median_seconds({'torch': run})['torch']:9.3f} s")


if __name__ == "__main__":
    flags.DEFINE_integer("rows", 32768, "Rows of the global batch, two per image.")
    flags.DEFINE_integer("dim", 128, "Width of the embeddings.")
    flags.DEFINE_string("dtype", "float32", "Type of the embeddings: float32 or bfloat16.")
    flags.DEFINE_integer("devices", 0, "Split the CPU into so many devices; 0: existing devices.")
    flags.DEFINE_string("topology", "", "Compile for these TPUs, for example v5e:2x4, v3:8x8.")
    flags.DEFINE_list("ways", [], "Names of the implementations to run; default: all.")
    app.run(main)
