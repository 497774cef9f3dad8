"""Cells: their configs, their rates, and which of them are one training."""

import pytest

from configs.simclr import get_config
from ssl_jax.errors import BAD_CONFIG, Fault
from ssl_jax.study import cells, rates


def rates_of(config, text):
    return {cell.name: cell.rate for cell in cells.of_grids(config, [text])}


def test_simclrs_two_rules_agree_at_4096_and_are_the_papers_elsewhere():
    """Arithmetic of arXiv 2002.05709, appendix B.1: 0.3 B / 256 and 0.075 sqrt(B)."""
    config = get_config("imagenet")
    assert (config.optim.lr, config.optim.lr_rule, config.train.batch_size) == (0.3, "linear", 4096)
    found = cells.of_grids(config, ["batch=256,1024,4096;lr_rule=linear,sqrt"])
    assert {cell.fields["optim.lr"] for cell in found[::2]} == {0.3}
    assert [cell.fields["optim.lr"] for cell in found[1::2]] == pytest.approx([0.075] * 3)
    expected = [0.3, 1.2, 1.2, 2.4, 4.8, 4.8]
    assert [cell.rate for cell in found] == pytest.approx(expected)
    assert [cell.config.optim.lr_rule for cell in found] == ["linear", "sqrt"] * 3


def test_a_constant_rate_becomes_a_rule_by_the_configs_own_batch(config):
    found = rates_of(config, "batch=32,128;lr_rule=linear,sqrt,constant")  # 0.005 at 128
    assert list(found.values()) == pytest.approx([0.00125, 0.0025, 0.005, 0.005, 0.005, 0.005])


def test_rates_of_the_grid_are_in_the_configs_own_rule(config):
    found = rates_of(config, "lr_rule=sqrt;optim.lr=0.1,0.2;batch=512")
    assert list(found.values()) == pytest.approx([0.2, 0.4])  # twice, for four times the batch


def test_without_rules_in_the_grid_nothing_is_converted(config):
    for cell in cells.of_grids(config, ["batch=64,256"]):
        assert cell.fields == {"train.batch_size": cell.config.train.batch_size}
        assert cell.rate == 0.005


def test_a_group_that_has_its_own_rate_is_converted_too(config):
    config.optim.groups = {"predictor": {"lr": 0.05}, "head": {"weight_decay": 0.0}}
    (cell,) = cells.of_grids(config, ["lr_rule=linear;batch=256"])
    assert cell.fields["optim.groups.predictor.lr"] == pytest.approx(0.1)
    assert rates.peaks(cell.config)["predictor"] == pytest.approx(0.1)
    assert cell.config.optim.groups.predictor.lr == pytest.approx(0.1)
    assert rates.peaks(cell.config)["head"] == pytest.approx(0.01)


def test_a_group_whose_rate_follows_another_rule_is_refused(config):
    config.optim.groups = {"predictor": {"lr_rule": "constant"}}
    with pytest.raises(Fault, match=r"optim\.groups\.predictor\.lr_rule"):
        cells.of_grids(config, ["lr_rule=linear,sqrt"])


def test_epochs_of_the_grid_count_where_the_config_has_steps():
    config = get_config("cifar10_cpu")
    assert config.train.steps == 1100
    (cell,) = cells.of_grids(config, ["epochs=3"])
    assert (cell.config.train.steps, cell.config.train.epochs) == (0, 3.0)
    assert cell.fields == {"train.epochs": 3.0, "train.steps": 0}


def test_cells_of_one_rate_are_one_training(config):
    found = cells.of_grids(config, ["batch=64,128;lr_rule=linear,sqrt;seed=0,1"])
    twins = {cell.name: cell.same_as for cell in found if cell.same_as}
    assert twins == {
        "batch=128-lr_rule=sqrt-seed=0": "batch=128-lr_rule=linear-seed=0",
        "batch=128-lr_rule=sqrt-seed=1": "batch=128-lr_rule=linear-seed=1",
    }


def test_a_cell_that_spells_out_a_default_is_the_cell_without_it(config):
    found = cells.of_grids(config, ["seed=0,1", "seed=0;optim.lr=0.005,0.01"])
    assert [cell.same_as for cell in found] == ["", "", "seed=0", ""]


def test_a_later_grid_leaves_the_numbers_of_cells_as_they_are(config):
    before = cells.of_grids(config, ["batch=64,128;seed=0"])
    after = cells.of_grids(config, ["batch=64,128;seed=0", "seed=0,1;batch=32,64,128"])
    assert [cell.name for cell in after[: len(before)]] == [cell.name for cell in before]
    assert len(after) == 6


def test_everything_that_is_wrong_with_any_cell_is_told_at_once(config):
    with pytest.raises(Fault) as caught:
        cells.of_grids(config, ["batch=64,-1;lr_rule=linear,sqroot;optim.lrr=1"])
    assert caught.value.code == BAD_CONFIG
    for words in ("batch_size=-1", "'sqroot': did you mean 'sqrt'?", "did you mean 'optim.lr'?"):
        assert words in str(caught.value)


def test_a_batch_that_does_not_divide_over_the_devices_is_refused(config):
    with pytest.raises(Fault, match="batch_size=66 does not divide over 4 devices"):
        cells.of_grids(config, ["batch=64,66;devices=2,4"])


def test_values_that_would_share_a_folder_are_refused(config):
    with pytest.raises(Fault, match="two cells would be called"):
        cells.of_grids(config, ["data.split=train[:9],train(:9)"])
