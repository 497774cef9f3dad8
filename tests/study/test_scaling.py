"""Scaling over devices, from rates written by hand."""

import pytest

from ssl_jax.study import gather, scaling

RATES = {(64, 1): 100, (128, 1): 110, (128, 2): 160, (256, 2): 198, (256, 4): 300}


def test_weak_and_strong_scaling_are_found_in_one_grid(study_of):
    study = study_of(
        "batch=64,128,256;devices=1,2,4;steps=9",
        images_per_second=lambda cell: RATES[cell.config.train.batch_size, cell.devices],
        skip=[
            f"batch={batch}-steps=9-devices={devices}"
            for batch in (64, 128, 256)
            for devices in (1, 2, 4)
            if (batch, devices) not in RATES
        ],
    )
    found = {(one.kind, one.batch): one for one in scaling.series(gather.rows(study))}
    assert set(found) == {("weak", 64), ("weak", 128), ("strong", 128), ("strong", 256)}
    weak = found["weak", 64]
    assert {n: rate.value for n, rate in weak.rates.items()} == {1: 100, 2: 160, 4: 300}
    assert weak.efficiency(2) == pytest.approx(0.8)  # 160 of 200
    assert weak.efficiency(4) == pytest.approx(0.75)  # 300 of 400
    assert found["strong", 128].efficiency(2) == pytest.approx(160 / 220)
    assert found["strong", 256].efficiency(4) == pytest.approx(300 / 396)  # from 2 devices on


def test_seeds_give_the_rates_an_interval_and_one_number_of_devices_gives_nothing(study_of):
    study = study_of(
        "batch=64,128;devices=1,2;seed=0,1",
        images_per_second=lambda cell: 100.0 + 10 * cell.setting["seed"],
    )
    (weak, *_) = scaling.series(gather.rows(study))
    assert weak.rates[1].value == 105
    assert weak.rates[1].half == pytest.approx(12.706 * 5, rel=1e-3)  # t of 1 degree · s / √2
    assert scaling.draw([]) == b""


def test_fields_that_the_grid_varies_are_series_of_their_own(study_of):
    study = study_of("batch=64;devices=1,2;model.width=0.5,1.0")
    others = [one.others for one in scaling.series(gather.rows(study))]
    assert others == ["model.width 0.5", "model.width 1"]
