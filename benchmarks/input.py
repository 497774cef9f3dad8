"""Throughput of the input pipeline with colour augmentation on the host and on the device.

    python -m benchmarks.input --config=configs/simclr.py:cifar10_cpu --config.data.dir=DATA_DIR

Measures `augment.placement` "host" and "device" in alternation. Prints images/s and CPU
milliseconds per image of each, and their ratio. The work on the device is not measured.
"""

import statistics
import time

from absl import flags

from ssl_jax import cli

ROUNDS, STEPS = 3, 8


def main() -> None:
    """Runs the benchmark; see the module's docstring."""
    config = cli.config()
    from ssl_jax import components

    source = components.open_source(config, config.data.split)
    steps = min(STEPS, max(2, flags.FLAGS.images // config.train.batch_size))
    readings: dict[str, list[tuple[float, float]]] = {"host": [], "device": []}
    for _ in range(ROUNDS):
        for placement, values in readings.items():
            config.augment.placement = placement
            values.append(_measure(components.train_batches, config, source, steps))
    for placement, values in readings.items():
        rate, cost = (statistics.median(column) for column in zip(*values, strict=True))
        print(f"{placement:8} {rate:8.0f} images/s {1000 * cost:8.2f} ms CPU per image")
    host, device = (statistics.median(r for r, _ in readings[p]) for p in ("host", "device"))
    print(f"device / host: {device / host:.2f}")


def _measure(train_batches, config, source, steps: int) -> tuple[float, float]:
    """Returns (images/s, CPU seconds per image); the first batch is not counted."""
    batches = train_batches(config, source, start_step=0, num_steps=steps + 1)
    next(batches)
    wall, cpu = time.perf_counter(), time.process_time()
    count = sum(len(batch["index"]) for batch in batches)
    return count / (time.perf_counter() - wall), (time.process_time() - cpu) / count


if __name__ == "__main__":
    cli.define_config()
    flags.DEFINE_integer("images", 4096, "Approximate number of images per measurement.")
    cli.run(main)
