"""What dividing a batch over devices costs: a step on 8 virtual devices beside one, equal batch.

    JAX_NUM_CPU_DEVICES=8 python -m benchmarks.devices --config=configs/simclr.py:digits \
        --config.train.batch_size=512

Both meshes are of one process, and their steps take turns, so that both meet the same machine. The
same cores do the same work: what the ratio has above 1 is the cost of dividing it, collectives and
all. With --fsdp the parameters are divided, too.
"""

import statistics
import time
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from ssl_jax import cli

FLAGS = flags.FLAGS


def main() -> None:
    """The command: see the module's docstring."""
    import jax

    from ssl_jax import parallel

    config = cli.config()
    meshes = {
        "1 device": parallel.make_mesh(jax.devices()[:1]),
        f"{jax.device_count()} devices": parallel.make_mesh(fsdp=FLAGS.fsdp),
    }
    steps = {name: stepper(config, mesh) for name, mesh in meshes.items()}
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
        print(f"{name:10} {1000 * median:8.1f} ms a step  {rate:8.1f} images/s", flush=True)
    one, many = seconds.values()
    ratios = [b / a for a, b in zip(one, many, strict=True)]
    print(
        f"ratio of the medians {medians.popitem()[1] / statistics.median(one):.3f}, "
        f"of the rounds {min(ratios):.3f} to {max(ratios):.3f}"
    )


def stepper(config: ConfigDict, mesh: Any) -> Any:
    """Returns () -> loss, one step of the real training after the other on one real batch."""
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
    flags.DEFINE_integer("rounds", 10, "Turns of each mesh.")
    flags.DEFINE_integer("steps", 3, "Steps of a turn.")
    flags.DEFINE_integer("fsdp", 1, "Devices over which parameters are divided.")
    cli.run(main)
