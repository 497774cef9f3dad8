"""Runs from before a hyperparameter existed keep its old value, and new runs name their value."""

import importlib
import json
import sys

import pytest
from absl import flags
from ml_collections import config_flags

from ssl_jax import cli
from ssl_jax import config as configuration
from ssl_jax.rundir import metadata

CONSTANT = {
    "temperature_schedule": "constant",
    "temperature_end": 0.1,
    "temperature_periods": 0.5,
}
PLAIN_HEAD = {"head_dropout": 0.0, "head_penalty": "none", "head_penalty_weight": 1e-4}
NO_ATTACK = {
    "attack_steps": 0,
    "attack_epsilon": 0.0314,
    "attack_step_size": 0.007,
    "attack_weight": 0.00390625,
}
OLD = {
    "barlow_twins": {"apart": False, "last_bias": True},
    "byol": {"target_init": "own", "output_norm": False, "last_bias": True},
    "dino": {"skip_frozen": False},
    "moco": CONSTANT,
    "moco_v3": {"last_bias": True} | CONSTANT,
    "simclr": {"scale": 1.0, "loss": "nt_xent", "class_prior": 0.1, "concentration": 1.0}
    | CONSTANT
    | PLAIN_HEAD
    | NO_ATTACK,
    "simclr_v2": {"scale": 1.0} | CONSTANT,
    "swav": {"skip_frozen": False},
    "vicreg": {"apart": False, "last_bias": True},
}


def without(name):
    """Returns a config of the method that lacks the hyperparameters of OLD."""
    file = "moco_v2" if name == "moco" else name
    config = importlib.import_module(f"configs.{file}").get_config("cifar10_cpu")
    with config.unlocked():
        config.method = {k: v for k, v in config.method.items() if k not in OLD[name]}
    return config


def changed(config, **method):
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.method.update(method)
    return config


def load(config, path):
    (path / "config.json").write_text(configuration.to_json(config))
    return configuration.load(path)


@pytest.mark.parametrize("name", OLD)
def test_load_gives_an_old_run_its_old_values(name, tmp_path):
    old = without(name)
    assert load(old, tmp_path).method.to_dict() == {**old.method.to_dict(), **OLD[name]}


def test_load_keeps_the_values_that_a_config_names(tmp_path):
    new = changed(without("byol"), last_bias=False, target_init="copy", output_norm=True)
    assert load(new, tmp_path).method == new.method


@pytest.mark.parametrize("name", ["mine:make", "npid"])
def test_load_adds_nothing_to_another_method(name, tmp_path):
    config = changed(without("byol"), name=name)
    assert load(config, tmp_path).method == config.method


def test_load_adds_nothing_to_weights_of_another_project(tmp_path):
    config = configuration.evaluation_config()
    with config.unlocked():
        config.pretrained, config.method = {"path": "weights.npz"}, {"name": "byol"}
    assert load(config, tmp_path).method.to_dict() == {"name": "byol"}


@pytest.mark.parametrize("name", OLD)
def test_old_values_describe_the_same_run_as_a_config_without_them(name):
    old = without(name)
    same = changed(old, **OLD[name])
    assert configuration.changes(old, same) == {"identity": [], "schedule": []}
    assert configuration.changes(same, old) == {"identity": [], "schedule": []}
    assert metadata.config_hash(old) == metadata.config_hash(same)


def test_another_value_describes_another_run():
    old = without("byol")
    new = changed(old, **OLD["byol"] | {"last_bias": False})
    line = "method.last_bias: was True, is now False"
    assert configuration.changes(json.loads(configuration.to_json(old)), new)["identity"] == [line]
    assert metadata.config_hash(old) != metadata.config_hash(new)
    # The same value of a method outside the package is a hyperparameter like any other.
    outside = [changed(config, name="mine:make") for config in (old, changed(old, last_bias=True))]
    line = "method.last_bias: was not set, is now True"
    assert configuration.changes(*outside)["identity"] == [line]


def test_config_of_a_new_run_names_the_defaults(tmp_path):
    defaults = {"target_init": "own", "output_norm": False, "last_bias": False}
    written = without("byol")
    named = configuration.with_defaults(written)
    assert named.method.to_dict() == {**written.method.to_dict(), **defaults}
    assert "last_bias" not in written.method
    assert load(named, tmp_path).method == named.method
    given = changed(written, last_bias=True)
    assert configuration.with_defaults(given).method.last_bias is True
    outside = changed(written, name="mine:make")
    assert configuration.with_defaults(outside).method == outside.method


def test_command_line_gives_a_config_that_names_the_defaults(monkeypatch):
    values = flags.FlagValues()
    config_flags.DEFINE_config_dict("config", without("barlow_twins"), flag_values=values)
    monkeypatch.setattr(sys, "argv", ["program"])  # ml_collections reads overrides from there
    values(["program"])
    monkeypatch.setattr(cli, "FLAGS", values)
    method = cli.config().method
    assert (method.apart, method.last_bias) == (True, False)
