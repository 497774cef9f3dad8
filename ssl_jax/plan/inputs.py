"""Whether the hosts can feed the chips: the real pipeline, measured on this machine."""

import io
import pathlib
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ssl_jax.data import pipeline, sources
from ssl_jax.data.sources import Source
from ssl_jax.inputs.image import decode
from ssl_jax.inputs.image.views import View
from ssl_jax.rundir import workdir

SECONDS = 1.0  # of each measurement
DISTINCT = 64  # generated images
# CPUs as the operating system counts them (two a core), by what the clouds document of the host
# types: TPU VMs ct3, ct4p, ct5lp-hightpu-4t, ct5p, ct6e-standard-4t; GPUs a2-highgpu-8g,
# a3-highgpu-8g, a3-ultragpu-8g.
HOST_CPUS = {
    **{"v2": 96, "v3": 96, "v4": 240, "v5e": 112, "v5p": 208, "v6e": 180},
    **{"a100": 96, "h100": 208, "h200": 224},
}


class Speed(NamedTuple):
    """What one CPU of this machine makes of a training's images.

    Attributes:
      host, device: images a second of one busy CPU, by `augment.placement`.
      source: what was read.
    """

    host: float
    device: float
    source: str


class Need(NamedTuple):
    """What every host must do so that its chips never wait.

    Attributes:
      images_per_second: of one host.
      cpus: busy CPUs like this machine's for that, by the config's placement.
      cpus_host, cpus_device: by either placement.
      available: CPUs of such a host; 0 where not known.
    """

    images_per_second: float
    cpus: float
    cpus_host: float
    cpus_device: float
    available: int


def need(speed: Speed, *, images_per_second: float, hosts: int, placement: str, chip: str) -> Need:
    """CPUs that each of `hosts` hosts needs for a given rate over all."""
    rate = images_per_second / hosts
    by = {"host": rate / speed.host, "device": rate / speed.device}
    return Need(rate, by[placement], by["host"], by["device"], HOST_CPUS.get(chip, 0))


def measured(source: Source, views: Sequence[View], folder: pathlib.Path) -> Speed:
    """As `measure`; the same data and views are measured once for a folder."""
    kept = workdir.Workdir(workdir.absolute(folder))
    key = repr((source.name, source.size, tuple(views)))
    if (known := kept.read_json("input.json")) and known.pop("key") == key:
        return Speed(**known)
    speed = measure(source, views)
    kept.write_json("input.json", speed._asdict() | {"key": key})
    return speed


def measure(source: Source, views: Sequence[View], *, batch_size: int = 32) -> Speed:
    """Runs the training's pipeline on this machine for some seconds in both placements.

    Time is that of the process on its CPUs, so that what else the machine does counts little.
    """
    rates = {
        placement: _images_per_cpu_second(source, views, batch_size, placement)
        for placement in ("host", "device")
    }
    return Speed(rates["host"], rates["device"], source.name)


def _images_per_cpu_second(
    source: Source, views: Sequence[View], batch_size: int, placement: str
) -> float:
    size = min(batch_size, source.size)
    batches = pipeline.train_batches(
        source,
        views=views,
        batch_size=size,
        seed=0,
        start_step=0,
        num_steps=1_000_000,
        placement="host" if placement == "host" else "device",
    )
    try:
        for _ in range(3):  # threads started, graph traced, read ahead
            next(batches)
        start, cpu, seen = time.monotonic(), time.process_time(), 0
        while time.monotonic() - start < SECONDS:
            next(batches)
            seen += size
        return seen / (time.process_time() - cpu)
    finally:
        batches.close()


def pictures(source: str, *, data_dir: str, split: str, size: tuple[int, int]) -> Source:
    """What to measure on: the data where they are, else JPEG files of that width and height."""
    if data_dir or source == "digits":
        return sources.get(source, data_dir=data_dir, split=split)
    return generated(*size)


def generated(width: int, height: int, *, quality: int = 90) -> Source:
    """JPEG files of that size in memory, about as rich in detail as photographs."""
    from PIL import Image

    files = []
    for seed in range(DISTINCT):
        random = np.random.default_rng(seed)
        pixels = np.zeros((height, width, 3))
        for scale, strength in ((32, 50.0), (8, 25.0), (2, 10.0)):
            small = (-(-height // scale), -(-width // scale), 3)
            noise = random.normal(size=small).repeat(scale, 0).repeat(scale, 1)
            pixels += strength * noise[:height, :width]
        file = io.BytesIO()
        image = Image.fromarray(np.clip(pixels + 128, 0, 255).astype(np.uint8))
        image.save(file, "JPEG", quality=quality)
        files.append(file.getvalue())
    kilobytes = sum(map(len, files)) / len(files) / 1000
    return Source(
        name=f"generated JPEG, {width}×{height}, {kilobytes:.0f} kB",
        size=len(files),
        classes=(),
        load=lambda index: (decode.decode(files[index]), -1),
        describe=lambda index: f"generated image {index}",
        label=lambda index: -1,
    )
