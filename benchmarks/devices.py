"""Cost of dividing a batch over devices: a step on 8 virtual devices against one device.

    JAX_NUM_CPU_DEVICES=8 python -m benchmarks.devices --config=configs/simclr.py:digits \
        --config.train.batch_size=512

The batch is the same. Both meshes belong to one process and their steps alternate, so that both see
the same load on the machine. The same cores do the same work, so a ratio above 1 is the cost of
dividing it, including collectives. With --fsdp the parameters are sharded, too.
"""

import statistics
import time
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from ssl_jax import cli

FLAGS = flags.FLAGS


def main() -> None:
    """Runs the benchmark; see the module's docstring."""
    import jax

    from ssl_jax import parallel

    config = cli.config()
    meshes = {
        "1 device": parallel.make_mesh(jax.devices()[:1]),
        f"{jax.device_count()} devices": parallel.make_mesh(fsdp=FLAGS.fsdp),
    }
    steps = {name: make_step(config, mesh) for name, mesh in meshes.items()}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(FLAGS.rounds):
        for name, step in steps.items():
            start = time.perf_counter()
            for _ in range(FLAGS.steps):
                loss = step()
            loss.block_until_ready()
            seconds[name].append((time.perf_counter() - start) / FLAGS.steps)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, median in medians.items():
        rate = config.train.batch_size / median
        print(f"{name:10} {1000 * median:8.1f} ms per step  {rate:8.1f} images/s", flush=True)
    one, many = seconds.values()
    ratios = [b / a for a, b in zip(one, many, strict=True)]
    print(
        f"ratio of medians {medians.popitem()[1] / statistics.median(one):.3f}, "
        f"per round {min(ratios):.3f} to {max(ratios):.3f}"
    )


def make_step(config: ConfigDict, mesh: Any) -> Any:
    """Returns a function () -> loss that runs one more training step on the same real batch."""
    import jax

    from ssl_jax import build, components, parallel

    parts = build.parts(config, mesh)
    rows = next(components.train_batches(config, parts.source, start_step=0, num_steps=1))
    with jax.set_mesh(mesh):
        batch, state = parallel.to_global(rows, mesh), parts.new_state()

    def step() -> Any:
        nonlocal state
        with jax.set_mesh(mesh):
            state, metrics = parts.train_step(state, batch)
        return metrics["loss"]

    step().block_until_ready()
    return step


if __name__ == "__main__":
    cli.define_config()
    flags.DEFINE_integer("rounds", 10, "Rounds; in each one every mesh runs once.")
    flags.DEFINE_integer("steps", 3, "Steps of a mesh per round.")
    flags.DEFINE_integer("fsdp", 1, "Devices over which parameters are sharded.")
    cli.run(main)
