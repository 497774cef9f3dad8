"""Fields that a run sets from its training data."""

import importlib

import pytest

from ssl_jax import components
from ssl_jax import config as configuration
from ssl_jax.data.source import Source
from ssl_jax.errors import BAD_DATA, Fault
from ssl_jax.field import AUTO
from ssl_jax.rundir import workdir
from ssl_jax.training import command

SIZES = (16, 17, 31, 32, 80, 255, 1000, 3000, 50_000, 1_281_167)


def folder(name="moco_v2", **overrides):
    config = importlib.import_module(f"configs.{name}").get_config("folder")
    config.update_from_flattened_dict({"data.dir": "images"} | overrides)
    return config


def adapt(images, classes=2, smallest=40, **config):
    return configuration.adapt(folder(**config), configuration.DataFacts(images, classes, smallest))


def test_80_images_of_2_classes():
    config, values = adapt(80)
    assert values == {
        "train.batch_size": 16,  # 80 / 8 = 10, raised to 16
        "train.epochs": 100.0,  # 500 steps of 16 images
        "optim.warmup_epochs": 10.0,
        "model.bn_group": 8,  # 32 rows in 4 groups
        "model.mean": (0.485, 0.456, 0.406),
        "model.std": (0.229, 0.224, 0.225),
        "method.queue_size": 64,  # 80 - 16 = 4 batches
        "eval.knn_k": 20,
        "eval.labels_per_class": (10, 0),
    }
    assert configuration.flatten(config).items() >= values.items()
    assert components.total_steps(config, 80) == 500


def test_3000_images_of_10_classes_and_a_set_without_labels():
    _, values = adapt(3000, 10, 300)
    assert values["train.batch_size"] == 256  # 375, lowered to a power of two
    assert (values["train.epochs"], values["method.queue_size"]) == (100, 2560)
    _, values = adapt(24, 0, 0)
    assert (values["train.batch_size"], values["train.epochs"]) == (8, 167)
    assert (values["eval.knn_k"], values["eval.labels_per_class"]) == (12, (0,))


@pytest.mark.parametrize("images", SIZES)
def test_adapted_values_fit_the_data(images):
    config, _ = adapt(images)
    batch, queue = config.train.batch_size, config.method.queue_size
    assert configuration.problems(config) == []
    assert configuration.auto_fields(config) == []
    assert 8 <= batch <= 256
    assert queue % batch == 0
    assert batch + queue <= images
    steps = components.total_steps(config, images)
    assert steps >= 500
    warmup = round(config.optim.warmup_epochs * images / batch)
    assert 1 <= warmup <= 0.1 * steps + 0.5


def test_given_values_stay_and_the_others_follow_them():
    config, values = adapt(80, **{"train.batch_size": 20, "train.steps": 7})
    assert "train.batch_size" not in values
    assert config.method.queue_size == 60
    assert config.train.epochs == 7 * 20 / 80
    assert config.optim.warmup_epochs == 20 / 80  # one step
    swav, _ = adapt(3000, name="swav")
    assert swav.method.prototypes == 128


@pytest.mark.parametrize(
    ("channels", "mean", "std"),
    [
        (1, (0.5,), (0.25,)),
        (3, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        (4, (0.5,) * 4, (0.25,) * 4),
    ],
)
def test_standardisation_fits_the_channels_of_the_images(channels, mean, std):
    config = folder("moco_v2", **{"data.channels": channels})
    assert configuration.problems(config) == []  # before the values are known
    config, values = configuration.adapt(config, configuration.DataFacts(80, 2, 40))
    assert (config.model.mean, config.model.std) == (mean, std)
    assert {"model.mean", "model.std"} <= values.keys()
    assert configuration.problems(config) == []


@pytest.mark.parametrize("colors", ["lightness", "lab"])
def test_encoders_that_see_lab_are_not_standardised(colors):
    config, values = adapt(80, **{"model.colors": colors})
    assert (config.model.mean, config.model.std) == ((0.0,) * 3, (1.0,) * 3)
    assert {"model.mean", "model.std"} <= values.keys()
    assert configuration.problems(config) == []


@pytest.mark.parametrize("colors", ["lightness", "lab"])
def test_standardisation_of_lab_is_refused_before_training(colors):
    given = {"model.mean": (0.5,) * 3, "model.std": (0.25,)}
    sentences = configuration.problems(folder(**given, **{"model.colors": colors}))
    assert len(sentences) == 2
    fixes = ("mean='(0.0, 0.0, 0.0)'", "std='(1.0, 1.0, 1.0)'")
    for sentence, fix in zip(sentences, fixes, strict=True):
        assert sentence.endswith(f"pass --config.model.{fix}")
        assert f"because model.colors='{colors}' centres and scales" in sentence


def test_simclr_does_not_standardise():
    config, values = adapt(80, name="simclr")
    assert (set(config.model.mean), set(config.model.std)) == ({0.0}, {1.0})
    assert "model.mean" not in values


def test_few_labels_need_more_than_that_many_in_every_class():
    assert adapt(22, 2, 11)[1]["eval.labels_per_class"] == (10, 0)
    assert adapt(22, 2, 10)[1]["eval.labels_per_class"] == (0,)


def test_too_few_images_are_refused():
    with pytest.raises(Fault, match="15 training images are too few") as error:
        adapt(15)
    assert error.value.code == BAD_DATA


def test_auto_is_a_number_that_flags_and_checks_accept():
    config = folder("simclr", **{"eval.labels_per_class": (5, AUTO)})
    assert configuration.problems(config) == [
        f"eval.labels_per_class={(5, AUTO)}: each 0 (all labels) or at least 2: one label is held "
        "out; (-1,): set from the data"
    ]
    config.eval.labels_per_class = (AUTO,)
    assert configuration.problems(config) == []
    config.train.batch_size = -2
    assert configuration.problems(config) == [
        "train.batch_size=-2: at least 1, or -1: set from the data"
    ]


def source(labels):
    return Source(
        name="list",
        size=len(labels),
        record={},
        load=lambda index: ({}, {}),
        describe=str,
        read_labels=lambda index: {"label": labels[index]},
        class_names={"label": ("a", "b", "c")} if labels[0] >= 0 else {},
        label_field="label",
    )


def test_facts_come_from_the_source():
    labels = [0] * 20 + [1] * 12 + [-1] * 2 + [2] * 14
    config, line = components.adapt_to_data(folder("simclr"), source(labels))
    assert config.eval.labels_per_class == (10, 0)
    assert config.eval.knn_k == 8  # 48 images of 3 classes
    assert line.startswith("adapted to 48 training images: train.batch_size=16, train.epochs=167")
    config, _ = components.adapt_to_data(folder("simclr"), source([0] * 40 + [1] * 12))
    assert config.eval.labels_per_class == (0,)  # class c has no image
    config, _ = components.adapt_to_data(folder("simclr"), source([-1] * 48))
    assert (config.eval.knn_k, config.eval.labels_per_class) == (20, (0,))


def test_labels_are_counted_among_the_examples_that_evaluation_uses():
    labels = [0] * 5000 + [1] * 5000 + [2] * 12
    whole, _ = components.adapt_to_data(folder("simclr", **{"eval.max_train": 0}), source(labels))
    assert whole.eval.labels_per_class == (10, 0)
    config = folder("simclr", **{"eval.max_train": 1000})  # of class c, about one
    adapted, _ = components.adapt_to_data(config, source(labels))
    assert adapted.eval.labels_per_class == (0,)


def test_fields_that_need_a_batch_are_checked_once_it_is_known():
    fields = {"train.noise_scale": True, "train.microbatch": 16}
    config = folder("moco_v2", **fields)
    assert configuration.problems(config) == []
    large, _ = components.adapt_to_data(config, source([0, 1] * 200))
    assert large.train.batch_size == 32
    with pytest.raises(Fault, match=r"train.noise_scale=True: needs train.microbatch"):
        components.adapt_to_data(config, source([0, 1] * 40))  # a batch of 16


def test_fields_that_follow_changed_data_are_told_on_resume(tmp_path):
    before, _ = components.adapt_to_data(folder("simclr"), source([0, 1] * 40))
    (tmp_path / "config.json").write_text(configuration.to_json(before))
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    after, line = components.adapt_to_data(folder("simclr"), source([0, 1] * 400))
    run = workdir.Workdir(tmp_path)
    advice = "the number of images sets some of these: restore the data, or use another --workdir"
    with pytest.raises(Fault, match=advice) as refused:
        command.check_config(after, run, [], adapted=line)
    assert "train.batch_size: was 16, is now 64" in str(refused.value)
    command.check_config(before, run, [], adapted=line)
    with pytest.raises(Fault) as refused:
        command.check_config(after, run, [])  # all values were given
    assert "number of images" not in str(refused.value)


def test_a_run_that_trained_nothing_accepts_another_config(tmp_path):
    before, _ = components.adapt_to_data(folder("simclr"), source([0, 1] * 40))
    after, _ = components.adapt_to_data(folder("simclr"), source([0, 1] * 400))
    (tmp_path / "config.json").write_text(configuration.to_json(before))
    run = workdir.Workdir(tmp_path)
    command.check_config(after, run, [])
    (tmp_path / "checkpoints").mkdir()
    command.check_config(after, run, [])
    (tmp_path / "checkpoints" / "100.tmp").mkdir()
    with pytest.raises(Fault, match="holds a run with another config"):
        command.check_config(after, run, [])


def test_config_without_auto_opens_no_data():
    config = importlib.import_module("configs.simclr").get_config("cifar10_cpu")
    assert components.adapt_to_data(config) == (config, "")
