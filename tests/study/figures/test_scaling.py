"""Scaling over devices, from rates written by hand."""

import pytest

from ssl_jax.study import results
from ssl_jax.study.figures import scaling

RATES = {(64, 1): 100, (128, 1): 110, (128, 2): 160, (256, 2): 198, (256, 4): 300}


def test_one_grid_gives_weak_and_strong_scaling(study_of):
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
    all_series = scaling.find_series(results.read_results(study))
    series = {(one.kind, one.batch): one for one in all_series}
    assert set(series) == {("weak", 64), ("weak", 128), ("strong", 128), ("strong", 256)}
    weak = series["weak", 64]
    assert {n: rate.value for n, rate in weak.rates.items()} == {1: 100, 2: 160, 4: 300}
    assert weak.efficiency(2) == pytest.approx(0.8)  # 160 of the ideal 200
    assert weak.efficiency(4) == pytest.approx(0.75)  # 300 of the ideal 400
    assert series["strong", 128].efficiency(2) == pytest.approx(160 / 220)
    assert series["strong", 256].efficiency(4) == pytest.approx(300 / 396)  # relative to 2 devices


def test_several_seeds_give_the_rates_an_interval(study_of):
    study = study_of(
        "batch=64,128;devices=1,2;seed=0,1",
        images_per_second=lambda cell: 100.0 + 10 * cell.setting["seed"],
    )
    (weak, *_) = scaling.find_series(results.read_results(study))
    assert weak.rates[1].value == 105
    # t for 1 degree of freedom · s / √2
    assert weak.rates[1].half == pytest.approx(12.706 * 5, rel=1e-3)
    assert scaling.draw([]) == b""


def test_each_value_of_another_key_has_its_own_series(study_of):
    study = study_of("batch=64;devices=1,2;model.width=0.5,1.0")
    others = [one.others for one in scaling.find_series(results.read_results(study))]
    assert others == ["model.width 0.5", "model.width 1"]
