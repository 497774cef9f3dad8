"""Measures the input pipeline on this machine and computes the CPUs that each host needs."""

import dataclasses
import io
import pathlib
import time
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from ssl_jax import components, plugins
from ssl_jax.data import pipeline
from ssl_jax.data.loader import ZEROS_LENGTH
from ssl_jax.data.source import Labels, Record, Source, image_record
from ssl_jax.inputs import Input
from ssl_jax.inputs.image import decode
from ssl_jax.jobs import json_files
from ssl_jax.jobs.json_files import is_number
from ssl_jax.rundir import workdir

SECONDS = 1.0  # of each measurement
GENERATED_IMAGES = 64
# CPUs per host as the operating system counts them (two per core), by the clouds' documentation of
# the host types: TPU VMs ct3, ct4p, ct5lp-hightpu-4t, ct5p, ct6e-standard-4t; GPUs a2-highgpu-8g,
# a3-highgpu-8g, a3-ultragpu-8g.
HOST_CPUS = {
    **{"v2": 96, "v3": 96, "v4": 240, "v5e": 112, "v5p": 208, "v6e": 180},
    **{"a100": 96, "h100": 208, "h200": 224},
}


class CpuThroughput(NamedTuple):
    """Training images that one busy CPU of this machine prepares.

    Attributes:
      host: examples/s with `augment.placement` "host", or without this field.
      device: examples/s with `augment.placement` "device"; `host` without this field.
      source: name of the data that was read.
    """

    host: float
    device: float
    source: str


class HostLoad(NamedTuple):
    """Work that every host must do so that its chips never wait for input.

    Attributes:
      images_per_second: images/s of one host.
      cpus: busy CPUs like this machine's that this takes with the config's `augment.placement`.
      cpus_host: busy CPUs with placement "host".
      cpus_device: busy CPUs with placement "device".
      available: CPUs of such a host; 0 if unknown.
    """

    images_per_second: float
    cpus: float
    cpus_host: float
    cpus_device: float
    available: int


def host_load(
    throughput: CpuThroughput, *, images_per_second: float, hosts: int, placement: str, chip: str
) -> HostLoad:
    """Returns the load of each of `hosts` hosts.

    Args:
      images_per_second: images/s of all hosts together.
      placement: `augment.placement` of the config; "" if the modality has none.
      chip: name of the chip, which decides on the type of host.
    """
    rate = images_per_second / hosts
    cpus = {"host": rate / throughput.host, "device": rate / throughput.device}
    return HostLoad(
        rate, cpus[placement or "host"], cpus["host"], cpus["device"], HOST_CPUS.get(chip, 0)
    )


def measure_cached(source: Source, config: ConfigDict, folder: pathlib.Path) -> CpuThroughput:
    """Returns the result of `measure`, which is kept in `folder` for the same data and input."""
    file = folder / "input.json"
    key = repr((source.name, source.size, config.augment.to_json(sort_keys=True)))
    known = json_files.read_or_ignore(file)
    host, device = known.get("host"), known.get("device")
    if known.get("key") == key and is_number(host) and is_number(device) and host * device > 0:
        return CpuThroughput(host, device, str(known.get("source")))
    throughput = measure(source, config)
    workdir.write_json(file, throughput._asdict() | {"key": key})
    return throughput


def measure(source: Source, config: ConfigDict, *, batch_size: int = 32) -> CpuThroughput:
    """Runs the training's pipeline on this machine for some seconds in every placement.

    It measures the CPU time of this process, so that other load on the machine matters little.
    """
    placements = ("host", "device") if "placement" in config.augment else ("",)
    rates = [
        _examples_per_cpu_second(source, input_placed(config, placement), batch_size)
        for placement in placements
    ]
    return CpuThroughput(rates[0], rates[-1], source.name)


def input_placed(config: ConfigDict, placement: str) -> Input:
    """Returns the config's input with another `augment.placement`; "" changes nothing."""
    changed = config.copy_and_resolve_references()
    if placement:
        changed.augment.placement = placement
    return components.make_input(changed)


def _examples_per_cpu_second(source: Source, example_input: Input, batch_size: int) -> float:
    size = min(batch_size, source.size)
    batches = pipeline.train_batches(
        source, example_input, batch_size=size, seed=0, start_step=0, num_steps=1_000_000
    )
    try:
        for _ in range(3):  # start threads, trace the graph, read ahead
            next(batches)
        start, cpu, seen = time.monotonic(), time.process_time(), 0
        while time.monotonic() - start < SECONDS:
            next(batches)
            seen += size
        return seen / (time.process_time() - cpu)
    finally:
        batches.close()


def benchmark_source(config: ConfigDict, image_size: tuple[int, int]) -> Source:
    """Returns the config's data if they are on this machine, else generated JPEG files.

    Arrays that a record holds beside its image, such as tokens, are zeros of length 32.
    """
    data = config.data
    if data.dir or data.source == "digits" or plugins.is_external(data.source):
        return components.open_source(config, data.split)
    images = generated_jpegs(*image_size, channels=data.get("channels", 3))
    record = components.make_input(config).record
    others = {
        name: np.zeros([ZEROS_LENGTH if n is None else n for n in shape], dtype)
        for name, (dtype, shape) in record.items()
        if name not in images.record
    }

    def load(index: int) -> tuple[Record, Labels]:
        loaded, labels = images.load(index)
        return loaded | others, labels

    return dataclasses.replace(images, record=record, load=load)


def generated_jpegs(width: int, height: int, *, quality: int = 90, channels: int = 3) -> Source:
    """Returns JPEG files in memory with about as much detail as photographs."""
    from PIL import Image

    files = []
    for seed in range(GENERATED_IMAGES):
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
        record=image_record(channels),
        load=lambda index: ({"image": decode.decode(files[index], channels)}, {}),
        describe=lambda index: f"generated image {index}",
    )
