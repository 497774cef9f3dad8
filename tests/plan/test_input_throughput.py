"""Throughput of the input pipeline, the load of each host, and sizes of datasets."""

import pytest
from programs import make_program

from configs import clip, cpc_audio
from configs.simclr import get_config
from ssl_jax import components
from ssl_jax.errors import USAGE, Fault
from ssl_jax.plan import input_throughput
from ssl_jax.plan.dataset_size import dataset_size


def test_host_load_in_cpus():
    """5,000 images/s per host at 100 (device) and 50 (host) images/s per CPU: 50 and 100 CPUs."""
    throughput = input_throughput.CpuThroughput(host=50.0, device=100.0, source="")
    load = input_throughput.host_load(
        throughput,
        images_per_second=40_000,
        hosts=8,
        placement="device",
        chip=make_program().topology.chip.name,
    )
    assert load == (5000.0, 50.0, 100.0, 50.0, 112)
    other = input_throughput.host_load(
        throughput, images_per_second=40_000, hosts=8, placement="host", chip="new"
    )
    assert (other.cpus, other.available) == (100.0, 0)


def test_throughput_is_measured_once_and_colours_cost_time(monkeypatch, tmp_path):
    """The default views spend most of their time on colours, which placement=device skips."""
    monkeypatch.setattr(input_throughput, "SECONDS", 0.5)
    source = input_throughput.generated_jpegs(96, 64)
    assert "96×64" in source.name
    record, labels = source.load(3)
    assert record["image"].shape == (64, 96, 3)
    assert labels == {}
    config = get_config("imagenet")
    config.augment.size = 64
    throughput = input_throughput.measure_cached(source, config, tmp_path)
    assert 1 < throughput.host < throughput.device
    monkeypatch.setattr(input_throughput, "measure", None)
    assert input_throughput.measure_cached(source, config, tmp_path) == throughput
    monkeypatch.setattr(input_throughput, "measure", lambda *_: throughput)
    for damage in ("", "[1]", '{"key": 3}', (tmp_path / "input.json").read_text()[:-9]):
        (tmp_path / "input.json").write_text(damage)
        assert input_throughput.measure_cached(source, config, tmp_path) == throughput


def test_input_without_placement_is_measured_once(monkeypatch):
    rates = iter([70.0])
    monkeypatch.setattr(input_throughput, "_examples_per_cpu_second", lambda *_: next(rates))
    source = input_throughput.generated_jpegs(8, 8)
    speed = input_throughput.measure(source, cpc_audio.get_config("spoken_digit"))
    assert (speed.host, speed.device) == (70.0, 70.0)
    options = {"images_per_second": 140.0, "hosts": 2, "chip": "new"}
    assert input_throughput.host_load(speed, placement="", **options).cpus == 1.0


def test_records_of_other_modalities_are_generated_around_an_image():
    config = clip.get_config("vit_b16")
    source = input_throughput.benchmark_source(config, (64, 48))
    record, _ = source.load(1)
    assert record["image"].shape == (48, 64, 3)
    expected = components.make_input(config).record
    assert source.record == expected
    assert {name: array.dtype for name, array in record.items()} == {
        name: dtype for name, (dtype, _) in expected.items()
    }


def test_dataset_size_comes_from_data_table_or_flags():
    def size(source, split="train", data_dir="", **flags):
        return dataset_size(source, data_dir=data_dir, split=split, **flags)[:2]

    assert size("digits") == (1297, 10)
    assert size("tfds:imagenet2012") == (1_281_167, 1000)
    assert size("tfds:imagenet2012", images=1000) == (1000, 1000)
    assert size("digits", holdout=0.1) == (1167, 10)
    assert size("tfds:cifar10", holdout=0.1) == (45_000, 10)
    assert size("digits", holdout=0.1, images=1000) == (1000, 10)
    assert size("folder", images=7, classes=0, data_dir="/nowhere") == (7, 0)
    for source, split in (("tfds:mine", "train"), ("tfds:cifar10", "train[:100]")):
        with pytest.raises(Fault, match="--images=NUMBER") as raised:
            size(source, split)
        assert raised.value.code == USAGE
