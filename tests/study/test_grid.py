"""Parsing of grids: keys, types, names and error messages."""

import pytest

from ssl_jax.study import grid


def test_keys_become_short_names_and_values_get_the_types_of_the_fields(config):
    text = "train.batch_size=64,128; epochs=4,8.5;lr_rule=linear;optim.nesterov=true;devices=1,2"
    parsed, problems = grid.parse(text, config)
    assert problems == []
    assert parsed == {
        "batch": (64, 128),
        "epochs": (4.0, 8.5),
        "lr_rule": ("linear",),
        "optim.nesterov": (True,),
        "devices": (1, 2),
    }
    assert [type(v) for v in parsed["epochs"]] == [float, float]


def test_commas_inside_brackets_do_not_split_values(config):
    parsed, problems = grid.parse("eval.labels_per_class=(10,),(0,20);seed=3", config)
    assert problems == []
    assert parsed == {"eval.labels_per_class": ((10,), (0, 20)), "seed": (3,)}


def test_a_field_whose_default_is_none_accepts_a_number(config):
    parsed, problems = grid.parse("optim.weight_decay_end=0.1,None", config)
    assert (parsed["optim.weight_decay_end"], problems) == ((0.1, None), [])


def test_settings_are_all_combinations_with_the_last_key_fastest(config):
    parsed, _ = grid.parse("seed=0,1;batch=64,128", config)
    assert list(grid.settings(parsed)) == [
        {"seed": 0, "batch": 64},
        {"seed": 0, "batch": 128},
        {"seed": 1, "batch": 64},
        {"seed": 1, "batch": 128},
    ]


def test_cell_name_ignores_the_order_of_keys_and_is_a_safe_folder_name():
    setting = {"seed": 1, "data.split": "train[:10]", "epochs": 4.0, "batch": 64, "devices": 2}
    name = "batch=64-epochs=4-devices=2-data.split=train__10_-seed=1"
    assert grid.cell_name(setting) == name
    assert grid.cell_name(dict(reversed(setting.items()))) == name


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("batchs=64", "batchs: unknown; did you mean 'batch'?"),
        ("optim.lrr=0.1", "optim.lrr: unknown; did you mean 'optim.lr'?"),
        ("batch=64.5", "batch=64.5: not a valid int; the config has 128"),
        ("optim.nesterov=1", "optim.nesterov=1: not a valid bool"),
        ("eval.labels_per_class=10", "eval.labels_per_class=10: not a valid tuple"),
        ("batch=64,64", "batch=64: given twice"),
        ("batch=64;train.batch_size=128", "batch: given twice"),
        ("batch", "'batch': write KEY=VALUE,VALUE"),
        ("batch=", "'batch=': write KEY=VALUE,VALUE"),
        ("", "empty"),
        ("steps=5;epochs=4", "give only one"),
        ("devices=0,1", "devices: each value must be at least 1"),
    ],
)
def test_the_problem_of_a_wrong_grid_is_described(config, text, problem):
    _, problems = grid.parse(text, config)
    assert len(problems) == 1
    assert problem in problems[0]


def test_all_problems_are_returned_at_once(config):
    _, problems = grid.parse("batchs=64;seed=x,y;epochs=1", config)
    assert len(problems) == 3
