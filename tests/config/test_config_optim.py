"""Fields of `config.optim`: refused values, the optimizer they build, and changes on resume."""

import json

import jax
import pytest

from configs.simclr import get_config
from ssl_jax import build, components, parallel
from ssl_jax import config as configuration
from ssl_jax.errors import BAD_CONFIG, Fault


def digits(**changes):
    config = get_config("digits")
    config.model.width = 0.125
    config.optim.update(changes)
    return config


@pytest.mark.parametrize(
    ("changes", "message_start"),
    [
        ({"schedule": "stp"}, "optim.schedule='stp': did you mean 'step'?"),
        ({"drops": (0.8, 0.6)}, "optim.drops=(0.8, 0.6): fractions of the run, rising"),
        ({"drops": (0.6, 0.6)}, "optim.drops"),
        ({"drops": (120, 160)}, "optim.drops=(120, 160)"),
        ({"drops": ("a",)}, "optim.drops"),
        ({"drop": 0.0}, "optim.drop=0.0: in (0, 1)"),
        ({"b2": 1.0}, "optim.b2=1.0: in [0, 1)"),
        ({"momentum": float("nan")}, "optim.momentum=nan: in [0, 1)"),
        ({"lr": float("inf")}, "optim.lr=inf: a finite number, 0 or more"),
        ({"weight_decay_end": -0.4}, "optim.weight_decay_end=-0.4: a finite number"),
        ({"trust_coefficient": 0.0}, "optim.trust_coefficient=0.0: a finite number above 0"),
        ({"groups": {"head": {"decay_all": 1}}}, "optim.groups.head.decay_all=1: True or False"),
        ({"clip_norm": -1.0}, "optim.clip_norm=-1.0: a finite number, 0 or more"),
        ({"groups": {"head": {}}}, "optim.groups.head: give the fields that differ"),
        ({"groups": {"head": 0.1}}, "optim.groups.head: give the fields that differ"),
        ({"groups": {"head": {"rl": 1.0}}}, "optim.groups.head.rl: unknown; did you mean 'lr'?"),
        ({"groups": {"head": {"clip_norm": 1.0}}}, "optim.groups.head.clip_norm: unknown"),
        ({"groups": {"head": {"lr": "0.1"}}}, "optim.groups.head.lr='0.1': a finite number"),
        (
            {"groups": {"head": {"warmup_epochs": -1.0}}},
            "optim.groups.head.warmup_epochs=-1.0: only optim.warmup_epochs can be -1",
        ),
        ({"groups": {"head": {"name": "adam"}}}, "optim.groups.head.name='adam': did you mean"),
        ({"groups": {"head": {"nesterov": 0}}}, "optim.groups.head.nesterov=0: True or False"),
    ],
)  # fmt: skip
def test_each_mistake_is_reported_once(changes, message_start):
    (problem,) = configuration.problems(digits(**changes))
    assert problem.startswith(message_start)


def test_groups_and_a_final_weight_decay_are_valid():
    groups = {"predictor": {"schedule": "constant"}, "head": {"weight_decay_end": None, "lr": 1}}
    assert configuration.problems(digits(groups=groups, weight_decay_end=0.4)) == []


def test_a_group_has_its_own_warm_up_in_epochs():
    # 1297 images in batches of 128 make an epoch of 10.13 steps.
    config = digits(
        name="sgd", lr=1.0, warmup_epochs=0.0, weight_decay=0.0, momentum=0.0, schedule="constant",
        groups={"head": {"warmup_epochs": 1.0}, "tail": {"warmup_epochs": 1e6}},
    )  # fmt: skip
    tx, _ = components.make_optimizer(config, size=1297, total=30)
    params = {name: jax.numpy.ones(()) for name in ("encoder", "head", "tail")}
    state = tx.init(params)
    for step in range(12):
        updates, state = tx.update(params, state, params)
        assert float(updates["encoder"]) == -1
        assert float(updates["head"]) == pytest.approx(-min(step / 10, 1))
        assert float(updates["tail"]) == pytest.approx(-step / 30)  # at most the whole run


def test_a_group_has_its_own_trust_ratio_and_decay():
    config = digits(
        name="lars", lr=1.0, warmup_epochs=0.0, weight_decay=0.5, momentum=0.0, schedule="constant",
        groups={"head": {"trust_coefficient": 0.02}, "tail": {"decay_all": True}},
    )  # fmt: skip
    tx, _ = components.make_optimizer(config, size=1297, total=30)
    params = {name: {"w": jax.numpy.eye(2), "b": jax.numpy.ones(2)} for name in ["head", "tail"]}
    grads = jax.tree.map(jax.numpy.zeros_like, params)
    updates, _ = tx.update(grads, tx.init(params), params)
    assert float(updates["head"]["w"][0, 0]) == pytest.approx(-0.02)
    assert float(updates["tail"]["w"][0, 0]) == pytest.approx(-0.001)
    assert [float(updates[name]["b"][0]) for name in ("head", "tail")] == [0, -0.5]
    table = components.parameter_table(config, params).splitlines()
    assert ["tail/b", "2", "2", "yes", "-", "lars"] in [line.split() for line in table]


@pytest.mark.parametrize(
    ("changes", "pattern"),
    [
        ({"groups": {"haed": {"lr": 0.1}}}, "groups: .*'haed'; the top level has: encoder, head"),
        (
            {"frozen": ("encoder/conv_1",)},
            "frozen: .*'encoder/conv_1'; similar paths: encoder/conv1",
        ),
    ],
)
def test_groups_and_frozen_paths_must_exist_in_the_model(changes, pattern):
    with pytest.raises(Fault, match=pattern) as refused:
        build.parts(digits(**changes), parallel.make_mesh(jax.devices()[:1]))
    assert refused.value.code == BAD_CONFIG


def test_the_table_shows_groups_and_frozen_parameters():
    config = digits(groups={"head": {"name": "lars"}}, frozen=("encoder/conv1",))
    parts = build.parts(config, parallel.make_mesh(jax.devices()[:1]))
    lines = components.parameter_table(config, parts.abstract_state.params).splitlines()
    last = {line.split()[0]: line.split()[-1] for line in lines[1:]}
    assert last.pop("total") == "frozen"
    assert last.pop("encoder/conv1/kernel") == "frozen"
    assert {name.split("/")[0]: value for name, value in last.items()} == {
        "encoder": "adamw", "head": "lars",
    }  # fmt: skip


def test_fields_that_shape_the_optimizer_state_are_of_the_identity_class():
    def kinds(**changes):
        old = json.loads(configuration.to_json(digits()))
        differences = configuration.changes(old, digits(**changes))
        return [kind for kind, lines in differences.items() if lines]

    assert kinds() == []
    for changes in (
        {"groups": {"head": {"lr": 0.1}}},
        {"frozen": ("encoder/conv1",)},
        {"weight_decay_end": 0.4},
        {"lr_in_momentum": False},
        {"trust_clip": True},
    ):
        assert kinds(**changes) == ["identity"], changes
    for changes in (
        {"clip_norm": 3.0},
        {"schedule": "step"},
        {"b2": 0.95},
        {"nesterov": True},
        {"trust_coefficient": 0.02},
        {"decay_all": True},
        {"adapt_all": True},
    ):
        assert kinds(**changes) == ["schedule"], changes
