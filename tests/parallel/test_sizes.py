"""Sizes that divide, and the nearest that do."""

from ssl_jax.parallel.sizes import check


def sizes(**fields):
    known = {"batch_size": 4096, "devices": 256, "hosts": 64}
    return {size.field: size for size in check(**(known | fields))}


def test_what_divides_says_what_follows():
    found = sizes(microbatch=1024, bn_group=8, queue_size=65536)
    assert all(size.fits for size in found.values())
    assert found["train.batch_size"].note == "16 images a device, 64 a host"
    assert found["train.microbatch"].note == "4 micro-batches of 4 images a device"
    assert found["method.queue_size"].note == "keys of the last 16 steps"
    assert found["model.bn_group"].note.startswith("1 groups inside each device's 8 rows")


def test_the_nearest_sizes_that_do():
    assert sizes(batch_size=4000)["train.batch_size"].valid == (3840, 4096)
    assert sizes(batch_size=100)["train.batch_size"].valid == (256,)
    assert sizes(microbatch=1000)["train.microbatch"].valid == (512, 1024)
    assert sizes(queue_size=65000)["method.queue_size"].valid == (61440, 65536)
    assert sizes(queue_size=1000)["method.queue_size"].valid == (4096,)
    # Two views of 4 images a device and micro-batch: 8 rows.
    assert sizes(microbatch=1024, bn_group=6)["model.bn_group"].valid == (4, 8)
    assert sizes(bn_group=48)["model.bn_group"].valid == (32, 64)


def test_groups_across_devices_travel():
    size = sizes(bn_group=64)["model.bn_group"]
    assert size.fits
    assert "statistics travel" in size.note


def test_parameters_are_divided_inside_a_slice():
    assert sizes(devices=512, slices=2, fsdp=256)["parallel.fsdp"].fits
    assert sizes(devices=512, slices=2, fsdp=512)["parallel.fsdp"].valid == (256,)
    assert sizes(fsdp=24)["parallel.fsdp"].valid == (16, 32)


def test_every_answer_is_valid_itself():
    for fields in (
        {"batch_size": 1000},
        {"microbatch": 700},
        {"queue_size": 5000},
        {"bn_group": 7},
    ):
        (wrong,) = [size for size in sizes(**fields).values() if not size.fits]
        name = wrong.field.split(".")[1]
        assert wrong.valid, fields
        for valid in wrong.valid:
            assert all(size.fits for size in sizes(**{name: valid}).values()), (fields, valid)
