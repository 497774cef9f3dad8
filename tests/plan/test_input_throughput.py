"""What the hosts must deliver, and how it is measured."""

import pytest
from programs import program

from ssl_jax.errors import USAGE, Fault
from ssl_jax.inputs.image.views import View
from ssl_jax.plan import dataset_size, input_throughput


def test_cpus_that_every_host_needs():
    """40,000 images/s over 8 hosts at 100 (device) and 50 (host) a CPU: 50 and 100 CPUs."""
    speed = input_throughput.Speed(host=50.0, device=100.0, source="")
    need = input_throughput.need(
        speed,
        images_per_second=40_000,
        hosts=8,
        placement="device",
        chip=program().topology.chip.name,
    )
    assert need == (5000.0, 50.0, 100.0, 50.0, 112)
    other = input_throughput.need(
        speed, images_per_second=40_000, hosts=8, placement="host", chip="new"
    )
    assert (other.cpus, other.available) == (100.0, 0)


def test_the_pipeline_is_measured_and_colours_cost(monkeypatch, tmp_path):
    """The default views spend most of their time on colours, which placement=device leaves out."""
    monkeypatch.setattr(input_throughput, "SECONDS", 0.5)
    source = input_throughput.generated(96, 64)
    assert "96×64" in source.name
    image, label = source.load(3)
    assert image.shape == (64, 96, 3)
    assert label == -1
    views = (View(size=64),) * 2
    speed = input_throughput.measured(source, views, tmp_path)
    assert 1 < speed.host < speed.device
    monkeypatch.setattr(input_throughput, "measure", None)
    assert input_throughput.measured(source, views, tmp_path) == speed


def test_images_and_classes_are_found_known_or_told():
    def of(source, split="train", data_dir="", **told):
        return dataset_size.of(source, data_dir=data_dir, split=split, **told)[:2]

    assert of("digits") == (1297, 10)
    assert of("tfds:imagenet2012") == (1_281_167, 1000)
    assert of("tfds:imagenet2012", images=1000) == (1000, 1000)
    assert of("folder", images=7, classes=0, data_dir="/nowhere") == (7, 0)
    for source, split in (("tfds:mine", "train"), ("tfds:cifar10", "train[:100]")):
        with pytest.raises(Fault, match="--images=NUMBER") as raised:
            of(source, split)
        assert raised.value.code == USAGE
