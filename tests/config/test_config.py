"""Views of a config: which mistakes are refused, and how a file and the command line set views."""

import json

import pytest
from absl import flags
from ml_collections import config_flags

from configs.simclr import get_config
from ssl_jax import config as configuration
from ssl_jax.errors import Fault

LOCAL = {"views": 6, "size": 96, "crop_area": (0.05, 0.14)}


def problems(**augment):
    config = get_config("imagenet")
    config.augment.update(augment)
    return configuration.problems(config)


@pytest.mark.parametrize(
    "augment",
    [
        {},
        {"views": 1},
        {"views": 4, "second": {"blur": 0.1}},
        {"local": LOCAL},
        {"second": {"size": 224}},
    ],
)
def test_valid_views_have_no_problems(augment):
    assert problems(**augment) == []


@pytest.mark.parametrize(
    ("augment", "message_start"),
    [
        ({"views": 0}, "augment.views=0: at least 1"),
        ({"size": 0}, "augment.size=0: at least 1"),
        ({"second": {"size": 96}}, "augment.second.size=96: full-size views have augment.size"),
        ({"second": {"blurr": 0.1}}, "augment.second.blurr: unknown; did you mean 'blur'"),
        (
            {"local": {**LOCAL, "crop_aera": 1}},
            "augment.local.crop_aera: unknown; did you mean 'crop_a",
        ),
        ({"local": {**LOCAL, "view": 1}}, "augment.local.view: unknown; did you mean 'views'"),
        ({"local": {"size": 96}}, "augment.local.views=None: a whole number, at least 1"),
        (
            {"local": {**LOCAL, "views": 0}},
            "augment.local.views=0: a whole number, at least 1",
        ),
        (
            {"local": {**LOCAL, "views": 1.5}},
            "augment.local.views=1.5: a whole number, at least 1",
        ),
        ({"local": {"views": 6}}, "augment.local.size=224: must differ from augment.size"),
        ({"local": {**LOCAL, "size": 0}}, "augment.local.size=0: at least 1"),
        ({"local": {**LOCAL, "crop_area": (0.3, 0.1)}}, "augment.local.crop_area=(0.3, 0.1): (low"),
        ({"flip": 2.0, "second": {"blur": 0.1}, "local": LOCAL}, "augment.flip=2.0: a probability"),
    ],
)
def test_each_mistake_is_reported_once(augment, message_start):
    (message,) = problems(**augment)
    assert message.startswith(message_start)


def test_command_line_changes_local_views_of_a_file(monkeypatch):
    config = get_config("imagenet")
    config.augment.local = LOCAL
    arguments = ["program", "--config.augment.views=1", "--config.augment.local.views=8"]
    monkeypatch.setattr("sys.argv", arguments)  # ml_collections reads overrides from there
    values = flags.FlagValues()
    config_flags.DEFINE_config_dict("config", config, flag_values=values)
    values(arguments)
    assert config.augment.views == 1
    assert config.augment.local.to_dict() == {**LOCAL, "views": 8}
    assert configuration.problems(config) == []
    again = configuration.from_json(configuration.to_json(config))
    assert configuration.changes(again, config) == {"identity": [], "schedule": []}
    assert configuration.changes(get_config("imagenet"), config)["identity"] == [
        "augment.local.crop_area: was not set, is now [0.05, 0.14]",
        "augment.local.size: was not set, is now 96",
        "augment.local.views: was not set, is now 8",
        "augment.views: was 2, is now 1",
    ]


@pytest.mark.parametrize(
    ("section", "field", "value", "text"),
    [
        ("data", "source", None, "data.source is not a word"),
        ("model", "mean", [{"a": 1}], "model.mean="),
        ("model", "std", None, "model.std="),
        ("model", "std", 2, "model.std="),
    ],
)
def test_a_value_of_a_wrong_type_in_a_file_is_named(tmp_path, section, field, value, text):
    content = json.loads(configuration.to_json(get_config("digits")))
    content[section][field] = value
    (tmp_path / "config.json").write_text(json.dumps(content))
    if field == "source":
        with pytest.raises(Fault, match=text):
            configuration.load(tmp_path)
    else:
        assert any(text in line for line in configuration.problems(configuration.load(tmp_path)))
