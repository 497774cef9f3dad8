"""Input pipeline: images/s of both placements of the colour work, side by side in one run.

    python -m benchmarks.input --config=configs/simclr.py:cifar10_cpu --config.data.dir=DATA_DIR

Prints images/s and CPU milliseconds per image of `augment.placement` "host" and "device", in
alternation, and their ratio. The device's share of "device" is not included.
"""

import statistics
import time

from absl import flags

from ssl_jax import cli

ROUNDS, STEPS = 3, 8


def main() -> None:
    """The command: see the module's docstring."""
    config = cli.config()
    from ssl_jax import components

    source = components.open_source(config, config.data.split)
    steps = min(STEPS, max(2, flags.FLAGS.images // config.train.batch_size))
    found: dict[str, list[tuple[float, float]]] = {"host": [], "device": []}
    for _ in range(ROUNDS):
        for placement, readings in found.items():
            config.augment.placement = placement
            readings.append(_measure(components.train_batches, config, source, steps))
    for placement, readings in found.items():
        rate, cost = (statistics.median(column) for column in zip(*readings, strict=True))
        print(f"{placement:8} {rate:8.0f} images/s {1000 * cost:8.2f} ms CPU per image")
    host, device = (statistics.median(r for r, _ in found[p]) for p in ("host", "device"))
    print(f"device / host: {device / host:.2f}")


def _measure(train_batches, config, source, steps: int) -> tuple[float, float]:
    """(images per second, CPU seconds per image) after a first batch that is not counted."""
    batches = train_batches(config, source, start_step=0, num_steps=steps + 1)
    next(batches)
    wall, cpu = time.perf_counter(), time.process_time()
    count = sum(len(batch["index"]) for batch in batches)
    return count / (time.perf_counter() - wall), (time.process_time() - cpu) / count


if __name__ == "__main__":
    cli.define_config()
    flags.DEFINE_integer("images", 4096, "Images of one reading, about.")
    cli.run(main)
