"""Grids as text: keys, types, names, and everything that may be wrong with one."""

import pytest

from ssl_jax.study import grid


def test_keys_go_by_short_names_and_values_have_the_types_of_the_fields(config):
    text = "train.batch_size=64,128; epochs=4,8.5;lr_rule=linear;optim.nesterov=true;devices=1,2"
    found, problems = grid.parse(text, config)
    assert problems == []
    assert found == {
        "batch": (64, 128),
        "epochs": (4.0, 8.5),
        "lr_rule": ("linear",),
        "optim.nesterov": (True,),
        "devices": (1, 2),
    }
    assert [type(v) for v in found["epochs"]] == [float, float]


def test_commas_inside_brackets_belong_to_the_value(config):
    found, problems = grid.parse("eval.labels_per_class=(10,),(0,20);seed=3", config)
    assert problems == []
    assert found == {"eval.labels_per_class": ((10,), (0, 20)), "seed": (3,)}


def test_a_field_that_may_be_none_takes_a_number(config):
    found, problems = grid.parse("optim.weight_decay_end=0.1,None", config)
    assert (found["optim.weight_decay_end"], problems) == ((0.1, None), [])


def test_settings_are_all_combinations_the_last_key_fastest(config):
    found, _ = grid.parse("seed=0,1;batch=64,128", config)
    assert list(grid.settings(found)) == [
        {"seed": 0, "batch": 64},
        {"seed": 0, "batch": 128},
        {"seed": 1, "batch": 64},
        {"seed": 1, "batch": 128},
    ]


def test_a_name_is_the_same_for_any_order_of_keys_and_safe_as_a_folder():
    setting = {"seed": 1, "data.split": "train[:10]", "epochs": 4.0, "batch": 64, "devices": 2}
    name = "batch=64-epochs=4-devices=2-data.split=train__10_-seed=1"
    assert grid.name(setting) == name
    assert grid.name(dict(reversed(setting.items()))) == name


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("batchs=64", "batchs: unknown; did you mean 'batch'?"),
        ("optim.lrr=0.1", "optim.lrr: unknown; did you mean 'optim.lr'?"),
        ("batch=64.5", "batch=64.5: no int; the config has 128"),
        ("optim.nesterov=1", "optim.nesterov=1: no bool"),
        ("eval.labels_per_class=10", "eval.labels_per_class=10: no tuple"),
        ("batch=64,64", "batch=64: given twice"),
        ("batch=64;train.batch_size=128", "batch: given twice"),
        ("batch", "'batch': write KEY=VALUE,VALUE"),
        ("batch=", "'batch=': write KEY=VALUE,VALUE"),
        ("", "empty"),
        ("steps=5;epochs=4", "give one of the two"),
        ("devices=0,1", "devices: each at least 1"),
    ],
)
def test_a_mistake_is_named(config, text, problem):
    _, problems = grid.parse(text, config)
    assert len(problems) == 1
    assert problem in problems[0]


def test_all_mistakes_are_named_at_once(config):
    _, problems = grid.parse("batchs=64;seed=x,y;epochs=1", config)
    assert len(problems) == 3
