"""The table of config fields: defaults, valid values, identity classes, and older configs."""

import dataclasses
import pathlib

import pytest
from absl import flags
from ml_collections import config_flags

from configs import byol
from configs.simclr import get_config
from ssl_jax import config as configuration
from ssl_jax.config import fields
from ssl_jax.config.defaults import untrusted_defaults
from ssl_jax.errors import Fault
from ssl_jax.field import FREE, IDENTITY, SCHEDULE, Unset, one_of
from ssl_jax.inputs.image.fields import DEFAULT_VIEW, VIEW_FIELDS
from ssl_jax.inputs.image.recipes import RECIPES
from ssl_jax.inputs.image.views import View
from ssl_jax.models.dbn import DBN
from ssl_jax.models.resnet import ResNet
from ssl_jax.models.vit import ViT
from ssl_jax.rundir import metadata

TABLE = (*fields.FIELDS, *fields.data_fields("digits"), *fields.augment_fields("digits"))
REQUIRED = {
    *("model.name", "method.name", "train.batch_size", "optim.name", "optim.lr", "optim.lr_rule"),
    *("optim.schedule", "optim.warmup_epochs", "optim.weight_decay", "optim.momentum"),
}


def test_field_names_are_unique_and_cover_the_default_config():
    names = [field.name for field in TABLE]
    assert len(names) == len(set(names))
    assert configuration.flatten(configuration.default_config()).keys() <= set(names)


@pytest.mark.parametrize("field", TABLE, ids=lambda field: field.name)
def test_a_field_has_a_meaning_a_class_and_a_valid_default(field):
    assert field.meaning.endswith(".")
    assert len(field.meaning.splitlines()) == 1
    assert field.kind in (IDENTITY, SCHEDULE, FREE)
    assert field.valid.text
    if not isinstance(field.default, Unset):
        assert field.valid.problem(field.default) == ""
    if field.before is not ...:
        assert field.valid.problem(field.before) == ""


def test_the_default_view_crops_and_flips():
    assert [field.name for field in VIEW_FIELDS] == list(View._fields)
    assert RECIPES["crop_flip"][0] == DEFAULT_VIEW


@pytest.mark.parametrize(
    ("encoder", "rows"),
    [(ResNet, fields.RESNET), (ViT, fields.VIT), (DBN, fields.DBN)],
)
def test_defaults_of_encoder_fields_are_the_encoders_own(encoder, rows):
    defaults = {field.name: field.default for field in dataclasses.fields(encoder)}
    common = [row for row in fields.MODEL if row.name in ("model.mean", "model.std")]
    for row in (*rows, *(common if encoder is not DBN else ())):
        assert defaults[row.name.removeprefix("model.")] == row.default, row.name


def test_a_recipe_that_is_not_set_is_refused_field_by_field():
    problems = configuration.problems(configuration.default_config())
    assert {p.split()[0] for p in problems if "is not set" in p} == REQUIRED
    assert "optim.lr is not set: give it in the config file, or pass --config.optim.lr=VALUE" in (
        problems
    )
    (other,) = (p for p in problems if "is not set" not in p)
    assert other == "train.epochs=0.0: more than 0, or set train.steps"
    config = get_config("digits")
    config.optim.lr = None
    assert [p.split()[0] for p in configuration.problems(config)] == ["optim.lr"]


def test_flags_of_fields_that_are_not_set_have_the_fields_type(monkeypatch):
    config = configuration.default_config()
    values = {"optim.lr": "1", "optim.name": "sgd", "train.batch_size": "8", "train.epochs": "2"}
    arguments = ["program", *(f"--config.{field}={text}" for field, text in values.items())]
    monkeypatch.setattr("sys.argv", arguments)  # ml_collections reads overrides from there
    flag_values = flags.FlagValues()
    config_flags.DEFINE_config_dict("config", config, flag_values=flag_values)
    flag_values(arguments)
    flat = configuration.flatten(config)
    typed = {field: flat[field] for field in values}
    assert typed == {
        "optim.lr": 1.0,
        "optim.name": "sgd",
        "train.batch_size": 8,
        "train.epochs": 2.0,
    }
    assert type(typed["optim.lr"]) is float


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("data.source", IDENTITY),
        ("data.dir", FREE),
        ("augment.size", IDENTITY),
        ("augment.placement", FREE),
        ("augment.second.blur", IDENTITY),
        ("model.dtype", FREE),
        ("model.patch_size", IDENTITY),
        ("method.temperature", IDENTITY),
        ("optim.lr", SCHEDULE),
        ("optim.groups.head.lr", IDENTITY),
        ("optim.frozen", IDENTITY),
        ("train.steps", SCHEDULE),
        ("train.log_every", FREE),
        ("eval.knn_k", FREE),
        ("finetune.head_layer", IDENTITY),
        ("pretrained.path", FREE),
    ],
)
def test_identity_class(name, kind):
    assert configuration.identity_class(name) == kind
    assert configuration.is_identity(name) == (kind == IDENTITY)


def test_describe_has_one_row_of_text_per_field():
    rows = {row.name: row for row in configuration.describe()}
    assert rows.keys() == {field.name for field in TABLE}
    assert all(isinstance(text, str) and text for row in rows.values() for text in row)
    assert rows["optim.lr"] == (
        *("optim.lr", "required", "Base learning rate, before `lr_rule`."),
        *("a finite number, 0 or more", "schedule"),
    )
    assert rows["optim.name"].valid == "one of adamw, lars, plain, sgd"
    assert rows["optim.weight_decay_end"].default == "None"
    assert (rows["eval.crop"].default, rows["eval.crop"].valid) == ("1.0", "in (0, 1]")
    assert rows["augment.placement"].valid == "one of host, device"


def test_a_run_from_before_a_field_existed_can_be_resumed():
    new = get_config("digits")
    old = new.copy_and_resolve_references()
    with old.unlocked():
        for field in configuration.IMPLIED:
            section, name = field.split(".")
            if name in old[section]:
                del old[section][name]
    assert configuration.changes(old.to_dict(), new) == {"identity": [], "schedule": []}
    assert metadata.config_hash(old) == metadata.config_hash(new)
    new.model.padding = "same"
    assert configuration.changes(old.to_dict(), new)["identity"]
    assert metadata.config_hash(old) != metadata.config_hash(new)


def test_a_run_from_before_interpolation_was_a_field_is_bicubic(tmp_path):
    run = get_config("digits").to_dict()
    del run["augment"]["interpolation"]
    (tmp_path / "config.json").write_text(configuration.to_json(run))
    old, new = configuration.load(tmp_path), get_config("digits")
    assert old.augment.interpolation == "bicubic"
    assert configuration.changes(old, new) == {"identity": [], "schedule": []}
    new.augment.interpolation = "bilinear"
    assert len(configuration.changes(old, new)["identity"]) == 1
    new.augment.interpolation = "nearest"
    (problem,) = configuration.problems(new)
    assert problem.startswith("augment.interpolation='nearest': ")


def test_load_fills_fields_that_an_old_config_lacks(tmp_path):
    config = byol.get_config("imagenet")
    old = config.copy_and_resolve_references()
    with old.unlocked():
        del old.optim.groups, old.optim.b2, old.augment.local, old.eval.few_shot_draws
        del old.model.padding, old.parallel
    (tmp_path / "config.json").write_text(configuration.to_json(old))
    loaded = configuration.load(tmp_path)
    assert "padding" not in loaded.model  # the encoder may be of another family
    with config.unlocked():
        del config.model.padding
        config.method.update(loaded.method)  # tests/config/test_old_methods.py
    assert configuration.flatten(loaded) == configuration.flatten(config)
    assert configuration.problems(loaded) == []


def test_configs_without_a_pre_training_of_ours_are_valid():
    evaluation = configuration.evaluation_config()
    with evaluation.unlocked():
        evaluation.pretrained = {"path": "weights.npz"}
    assert configuration.problems(evaluation) == []
    model = {"name": "resnet50", "padding": "same"}
    tuned = configuration.finetuning_config(configuration.imported_config(model, 224, 0.875))
    assert configuration.problems(tuned) == []
    assert (tuned.train.batch_size, tuned.method.name) == (256, configuration.IMPORTED)
    plain = configuration.finetuning_config(configuration.default_config())
    assert [p.split()[0] for p in configuration.problems(plain)] == ["model.name", "method.name"]


def test_a_modality_outside_the_package_brings_its_own_fields(tmp_path, monkeypatch):
    (tmp_path / "series_modality.py").write_text(
        "def default_fields():\n    return {'window': 16}\n"
        "def problems(augment):\n"
        "    return [] if augment['window'] > 0 else ['augment.window: more than 0']\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("SSL_JAX_MODULES", "")
    source = "series_modality:open_source"
    with pytest.raises(Fault, match="SSL_JAX_MODULES=series_modality"):
        untrusted_defaults(source)
    config = configuration.default_config(source)  # a config file of the user allows the module
    assert config.augment.to_dict() == {"window": 16}
    config.augment.window = 0
    assert configuration.problems(config)[-1] == "augment.window: more than 0"
    assert not [p for p in configuration.problems(config) if p.startswith("data.source")]
    assert not [row for row in configuration.describe(source) if row.name.startswith("augment.")]
    tuned = configuration.finetuning_config(config)
    assert tuned.augment.to_dict() == {"window": 0}
    (tmp_path / "config.json").write_text(configuration.to_json(config))
    assert configuration.load(tmp_path).augment.to_dict() == {"window": 0}


@pytest.mark.parametrize(
    ("field", "value", "valid"),
    [
        ("method.name", "mine:make", True),
        ("model.name", "my.module:Encoder", True),
        ("data.source", "mine:open_source", True),
        ("method.name", "simcrl", False),
        ("data.source", "digits:x y", False),
    ],
)
def test_names_of_objects_outside_the_package_are_valid(field, value, valid):
    (row,) = (row for row in fields.FIELDS if row.name == field)
    assert (row.valid.problem(value) == "") == valid


def test_config_hash_of_a_run_before_channels_and_labels_is_unchanged():
    """The config.json and the hash in metadata.json of a run of digits at commit 1e6ebd2."""
    file = pathlib.Path(__file__).with_name("config_before_channels.json")
    old = configuration.from_json(file.read_text())
    assert "channels" not in old.data
    expected = "e5bdcbbe5a8b1252ff0302576e39eab0aa385b89e0705ba99521c9fd4b2b1d30"
    assert metadata.config_hash(old) == expected
    new = get_config("digits")
    new.train.update(steps=60, checkpoint_every=30, log_every=1)
    assert metadata.config_hash(new) == expected
    assert configuration.changes(old, new) == {"identity": [], "schedule": []}
    new.data.channels = 1
    assert metadata.config_hash(new) != expected


def test_identity_class_of_an_outside_modality_is_that_of_its_own_table(tmp_path, monkeypatch):
    (tmp_path / "tabled.py").write_text(
        "from ssl_jax.field import FREE, IDENTITY, Field, any_value\n"
        "FIELDS = (Field('cache', '', 'Folder.', any_value('a word'), FREE),\n"
        "          Field('placement', 1, 'Place.', any_value('a number'), IDENTITY))\n"
        "def default_fields():\n    return {f.name: f.default for f in FIELDS}\n"
        "def problems(augment):\n    return []\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("SSL_JAX_MODULES", "tabled")
    old, new = (configuration.default_config("tabled:open_it") for _ in range(2))
    new.augment.cache = "elsewhere"
    assert configuration.changes(old, new) == {"identity": [], "schedule": []}
    new.augment.placement = 2
    assert configuration.changes(old, new)["identity"] == ["augment.placement: was 1, is now 2"]
    assert configuration.identity_class("augment.placement") == FREE  # of images


def test_an_empty_choice_is_shown_in_quotes():
    choices = one_of("", "probe", "knn")
    assert choices.text == "one of '', probe, knn"
    assert choices.problem("zebra") == "choose from: '', probe, knn"
    assert choices.problem("prob") == "did you mean 'probe'?"
    assert choices.problem("") == ""
