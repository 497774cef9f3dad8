"""Cells: their configs, their learning rates, and which of them share a training."""

import pytest

from configs.simclr import get_config
from ssl_jax.errors import BAD_CONFIG, Fault
from ssl_jax.study import cells, learning_rates


def rates_of(config, grid):
    return {cell.name: cell.rate for cell in cells.make_cells(config, [grid])}


def test_simclr_rules_agree_at_batch_4096_and_match_the_paper_elsewhere():
    """Rates by arXiv 2002.05709, appendix B.1: 0.3 B / 256 and 0.075 sqrt(B)."""
    config = get_config("imagenet")
    assert (config.optim.lr, config.optim.lr_rule, config.train.batch_size) == (0.3, "linear", 4096)
    grid_cells = cells.make_cells(config, ["batch=256,1024,4096;lr_rule=linear,sqrt"])
    assert {cell.fields["optim.lr"] for cell in grid_cells[::2]} == {0.3}
    assert [cell.fields["optim.lr"] for cell in grid_cells[1::2]] == pytest.approx([0.075] * 3)
    expected = [0.3, 1.2, 1.2, 2.4, 4.8, 4.8]
    assert [cell.rate for cell in grid_cells] == pytest.approx(expected)
    assert [cell.config.optim.lr_rule for cell in grid_cells] == ["linear", "sqrt"] * 3


def test_rules_agree_with_a_constant_rate_at_the_configs_batch(config):
    rates = rates_of(config, "batch=32,128;lr_rule=linear,sqrt,constant")  # 0.005 at 128
    assert list(rates.values()) == pytest.approx([0.00125, 0.0025, 0.005, 0.005, 0.005, 0.005])


def test_base_rates_in_the_grid_follow_the_configs_rule(config):
    rates = rates_of(config, "lr_rule=sqrt;optim.lr=0.1,0.2;batch=512")
    # By the sqrt rule, four times the batch has twice the rate.
    assert list(rates.values()) == pytest.approx([0.2, 0.4])


def test_rates_are_not_converted_if_the_grid_has_no_rule(config):
    for cell in cells.make_cells(config, ["batch=64,256"]):
        assert cell.fields == {"train.batch_size": cell.config.train.batch_size}
        assert cell.rate == 0.005


def test_the_rate_of_a_parameter_group_is_converted(config):
    config.optim.groups = {"predictor": {"lr": 0.05}, "head": {"weight_decay": 0.0}}
    (cell,) = cells.make_cells(config, ["lr_rule=linear;batch=256"])
    assert cell.fields["optim.groups.predictor.lr"] == pytest.approx(0.1)
    assert learning_rates.peak_rates(cell.config)["predictor"] == pytest.approx(0.1)
    assert cell.config.optim.groups.predictor.lr == pytest.approx(0.1)
    assert learning_rates.peak_rates(cell.config)["head"] == pytest.approx(0.01)


def test_a_parameter_group_with_another_rule_is_refused(config):
    config.optim.groups = {"predictor": {"lr_rule": "constant"}}
    with pytest.raises(Fault, match=r"optim\.groups\.predictor\.lr_rule"):
        cells.make_cells(config, ["lr_rule=linear,sqrt"])


def test_epochs_in_the_grid_replace_steps_of_the_config():
    config = get_config("cifar10_cpu")
    assert config.train.steps == 1100
    (cell,) = cells.make_cells(config, ["epochs=3"])
    assert (cell.config.train.steps, cell.config.train.epochs) == (0, 3.0)
    assert cell.fields == {"train.epochs": 3.0, "train.steps": 0}


def test_cells_with_the_same_rate_share_a_training(config):
    grid_cells = cells.make_cells(config, ["batch=64,128;lr_rule=linear,sqrt;seed=0,1"])
    shared = {cell.name: cell.same_as for cell in grid_cells if cell.same_as}
    assert shared == {
        "batch=128-lr_rule=sqrt-seed=0": "batch=128-lr_rule=linear-seed=0",
        "batch=128-lr_rule=sqrt-seed=1": "batch=128-lr_rule=linear-seed=1",
    }


def test_a_cell_that_sets_a_default_shares_the_training_of_the_cell_without_it(config):
    grid_cells = cells.make_cells(config, ["seed=0,1", "seed=0;optim.lr=0.005,0.01"])
    assert [cell.same_as for cell in grid_cells] == ["", "", "seed=0", ""]


def test_a_later_grid_does_not_change_the_numbers_of_cells(config):
    before = cells.make_cells(config, ["batch=64,128;seed=0"])
    after = cells.make_cells(config, ["batch=64,128;seed=0", "seed=0,1;batch=32,64,128"])
    assert [cell.name for cell in after[: len(before)]] == [cell.name for cell in before]
    assert len(after) == 6


def test_all_problems_of_all_cells_are_reported_at_once(config):
    with pytest.raises(Fault) as caught:
        cells.make_cells(config, ["batch=64,-1;lr_rule=linear,sqroot;optim.lrr=1"])
    assert caught.value.code == BAD_CONFIG
    for words in ("batch_size=-1", "'sqroot': did you mean 'sqrt'?", "did you mean 'optim.lr'?"):
        assert words in str(caught.value)


def test_fields_that_a_run_would_set_from_its_data_are_refused():
    config = get_config("folder")
    config.data.dir = "images"
    with pytest.raises(Fault) as refused:
        cells.make_cells(config, ["batch=64;epochs=5"])
    (problem,) = str(refused.value).splitlines()[1:]
    assert "optim.warmup_epochs=-1: a study needs a given value" in problem
    config.optim.warmup_epochs = 1.0
    (cell,) = cells.make_cells(config, ["batch=64;epochs=5"])
    assert cell.config.train.batch_size == 64


def test_a_batch_that_does_not_divide_over_the_devices_is_refused(config):
    with pytest.raises(Fault, match="batch_size=66 does not divide over 4 devices"):
        cells.make_cells(config, ["batch=64,66;devices=2,4"])


def test_cells_with_the_same_folder_name_are_refused(config):
    with pytest.raises(Fault, match="two cells would have the name"):
        cells.make_cells(config, ["data.split=train[:9],train(:9)"])
