"""Sizes that divide over devices, and the nearest valid ones."""

from ssl_jax.parallel.sizes import check


def sizes(**fields):
    known = {"batch_size": 4096, "devices": 256, "hosts": 64}
    return {size.field: size for size in check(**(known | fields))}


def test_valid_sizes_note_their_consequence():
    checked = sizes(microbatch=1024, bn_group=8, queue_size=65536)
    assert all(size.fits for size in checked.values())
    assert checked["train.batch_size"].note == "16 images per device, 64 per host"
    assert checked["train.microbatch"].note == "4 micro-batches of 4 images per device"
    assert checked["method.queue_size"].note == "keys of the last 16 steps"
    assert checked["model.bn_group"].note.startswith("1 groups inside each device's 8 rows")


def test_invalid_sizes_suggest_the_nearest_valid_ones():
    assert sizes(batch_size=4000)["train.batch_size"].valid == (3840, 4096)
    assert sizes(batch_size=100)["train.batch_size"].valid == (256,)
    assert sizes(microbatch=1000)["train.microbatch"].valid == (512, 1024)
    assert sizes(queue_size=65000)["method.queue_size"].valid == (61440, 65536)
    assert sizes(queue_size=1000)["method.queue_size"].valid == (4096,)
    # A device has 4 images of a micro-batch with two views each: 8 rows.
    assert sizes(microbatch=1024, bn_group=6)["model.bn_group"].valid == (4, 8)
    assert sizes(bn_group=48)["model.bn_group"].valid == (32, 64)


def test_groups_that_span_devices_exchange_statistics():
    size = sizes(bn_group=64)["model.bn_group"]
    assert size.fits
    assert "exchange statistics" in size.note


def test_fsdp_stays_inside_a_slice():
    assert sizes(devices=512, slices=2, fsdp=256)["parallel.fsdp"].fits
    assert sizes(devices=512, slices=2, fsdp=512)["parallel.fsdp"].valid == (256,)
    assert sizes(fsdp=24)["parallel.fsdp"].valid == (16, 32)


def test_every_suggested_size_is_valid():
    for fields in (
        {"batch_size": 1000},
        {"microbatch": 700},
        {"queue_size": 5000},
        {"bn_group": 7},
    ):
        (invalid,) = [size for size in sizes(**fields).values() if not size.fits]
        name = invalid.field.split(".")[1]
        assert invalid.valid, fields
        for valid in invalid.valid:
            assert all(size.fits for size in sizes(**{name: valid}).values()), (fields, valid)
