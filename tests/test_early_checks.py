"""Mistakes that a run would meet at its end, or never, are told before its first step."""

import dataclasses
import types

import jax
import numpy as np
import pytest
import tiny
from absl import flags

from configs import moco_v2
from configs.simclr import get_config
from ssl_jax import build, cli, methods, parallel, train
from ssl_jax import config as configuration
from ssl_jax.data import sources
from ssl_jax.errors import BAD_CONFIG, BAD_DATA, Fault, Faults
from ssl_jax.evals import early
from ssl_jax.rundir import workdir
from ssl_jax.training import command, loop


class Started(Exception):
    """The run would train now."""


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Returns start(config): what `train` does with a config up to the first step."""

    def started(*args, **options):
        raise Started

    mesh = parallel.make_mesh(jax.devices()[:1])
    monkeypatch.setattr(parallel, "make_mesh", lambda **_: mesh)
    monkeypatch.setattr("ssl_jax.models.get", lambda name, *, dtype, **_: tiny.Encoder(dtype=dtype))
    monkeypatch.setattr(loop, "fit", started)

    def start(config):
        train.train(config, workdir.Workdir(workdir.absolute(tmp_path)), stop=None)

    return start


def digits(**fields):
    """Returns the config of digits with other values. Keywords have "__" for the dot."""
    config = get_config("digits")
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in fields.items()})
    return config


@pytest.mark.parametrize(
    ("fields", "code", "texts"),
    [
        ({"train__batch_size": 2048}, BAD_DATA, ["1297 examples < batch 2048"]),
        ({"data__channels": 2}, BAD_CONFIG, ["data.channels=2"]),
        # scikit-learn's digits: the rarest class of the 1,297 training images has 122.
        (
            {"eval__labels_per_class": (10, 123)},
            BAD_DATA,
            ["eval.labels_per_class=(10, 123)", "has only 122", "labels_per_class=(122,), or (0,)"],
        ),
        ({"eval__max_train": 1}, BAD_DATA, ["all training examples", "of the class '"]),
        (
            {"method__temperature": 0.003},
            BAD_CONFIG,
            ["bad config: ", "temperature must be at least 0.0149, got 0.003", "range of float32"],
        ),
        (
            {"method__loss": "hard_negatives", "method__temperature": 0.02},
            BAD_CONFIG,
            ["temperature must be at least 0.0297 with concentration 1, got 0.02"],
        ),
        ({"method__loss": "nt_xnet"}, BAD_CONFIG, ["unknown loss 'nt_xnet'", "nt_xent, decoupled"]),
        (
            {"method__loss": "debiased", "method__class_prior": 1.0},
            BAD_CONFIG,
            ["class_prior must be in [0, 1), got 1.0"],
        ),
        (
            {"method__temperature": -1.0, "data__eval_split": "nope"},
            66,
            ["2 problems", "temperature must be positive, got -1.0", "no split 'nope'"],
        ),
    ],
)
def test_a_mistake_is_told_before_the_first_step(start, fields, code, texts):
    with pytest.raises(Fault) as refused:
        start(digits(**fields))
    assert refused.value.code == code
    for text in texts:
        assert text in str(refused.value)


def test_valid_labels_per_class_start_without_a_warning(start, capsys):
    with pytest.raises(Started):
        start(digits(eval__labels_per_class=(122,)))
    assert "warning" not in capsys.readouterr().out


@pytest.fixture
def unlabel(monkeypatch):
    """Returns unlabel(split, every): takes every n-th label away from a split of digits."""
    opened = sources.open_source

    def unlabel(without, every=1):
        def open_source(name, *, split, **options):
            source = opened(name, split=split, **options)
            if split != without:
                return source
            return dataclasses.replace(
                source, read_labels=lambda i: source.read_labels(i) if i % every else {"label": -1}
            )

        monkeypatch.setattr(sources, "open_source", open_source)

    return unlabel


def test_a_split_without_labels_is_refused(start, unlabel):
    unlabel("test")
    with pytest.raises(Fault, match="eval_split=test: 500 of 500 examples") as refused:
        start(digits())
    assert refused.value.code == BAD_DATA
    assert str(refused.value).endswith('--config.data.eval_split=""')
    with pytest.raises(Started):
        start(digits(data__eval_split=""))


@pytest.mark.parametrize("on", ["probe", "knn"])
@pytest.mark.parametrize(("every", "missing"), [(1, "1000 of 1000"), (4, r"\d+ of 1000")])
def test_early_stopping_needs_all_labels(start, unlabel, on, every, missing):
    unlabel("train", every)
    config = digits(train__stop_on=on, data__eval_split="")
    message = rf"^(bad data: )?train.stop_on='{on}': {missing} examples of digits have no label"
    with pytest.raises(Fault, match=message) as refused:
        start(config)
    assert refused.value.code == BAD_DATA
    assert str(refused.value).endswith('or train all steps by --config.train.stop_on=""')
    config.train.stop_on = ""
    with pytest.raises(Started):
        start(config)


def test_early_stopping_on_the_probe_of_a_method_without_one_is_refused(start, monkeypatch):
    make = methods.get("simclr")

    def without_features(*args, **hyperparameters):
        method = make(*args, **hyperparameters)

        def encode(*inputs):
            outputs, stats = method.encode(*inputs)
            return {name: x for name, x in outputs.items() if name != "features"}, stats

        return method._replace(encode=encode)

    monkeypatch.setattr(methods, "get", lambda name: without_features)
    with pytest.raises(Started):
        start(digits())
    message = "train.stop_on='probe': encode of the method simclr returns no 'features'"
    with pytest.raises(Fault, match=message) as refused:
        start(digits(train__stop_on="probe"))
    assert refused.value.code == BAD_CONFIG


def test_a_source_without_read_labels_starts(start, monkeypatch):
    """`load` gives the labels of such a source."""
    opened = sources.open_source

    def open_source(name, **options):
        return dataclasses.replace(opened(name, **options), read_labels=lambda index: {})

    monkeypatch.setattr(sources, "open_source", open_source)
    with pytest.raises(Started):
        start(digits())


def labels_read(labels, **fields):
    """Returns (fault texts, labels read) of the checks of a source with these labels."""
    read = []
    source = dataclasses.replace(
        sources.open_source("digits", data_dir="", split="train"),
        size=len(labels),
        read_labels=lambda index: read.append(index) or {"label": int(labels[index])},
    )
    method = types.SimpleNamespace(evals=("knn", "linear"))
    parts = types.SimpleNamespace(test=source, source=source, method=method)
    return [str(fault) for fault in early.problems(digits(**fields), parts)], len(read)


def test_checks_read_few_labels_and_each_once():
    labels = np.arange(100_000) % 10
    faults, read = labels_read(labels, eval__labels_per_class=(10, 0))
    assert faults == []
    assert 2000 + 100 <= read < 2000 + 300  # 1,000 of each split, and until 10 of each class
    labels[labels == 9] = 8  # a class without examples: only a limited number is read
    faults, read = labels_read(labels, eval__labels_per_class=(10, 0))
    assert (faults, read) == ([], 52_000)


def test_the_only_class_is_named_and_missing_labels_are_no_class():
    labels = np.full(3000, 7)
    labels[1] = -1  # between the examples that are read to find unlabelled data
    (fault,), _ = labels_read(labels, eval__protocols=("knn",))
    assert "are of the class '7'" in fault


def moco(queue_size):
    config = digits()
    config.method = moco_v2.METHOD | {"queue_size": queue_size, "shuffle_groups": 1}
    return config


def test_a_queue_larger_than_the_data_is_refused(start, tmp_path, capsys):
    with pytest.raises(Started):
        start(moco(1280))
    with pytest.raises(Fault, match=r"queue_size=1408 is more than the 1297 .*=1280 or less") as no:
        start(moco(1408))
    assert no.value.code == BAD_CONFIG
    # An attempt that trained no step left this file: the run is still new.
    (tmp_path / "config.json").write_text(configuration.to_json(moco(1408)))
    with pytest.raises(Fault, match="queue_size=1408 is more"):
        start(moco(1408))
    # A run of an earlier version may go on, also if its config.json is damaged.
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    for text in (configuration.to_json(moco(1408)), "", '{"mod'):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(Started):
            start(moco(1408))
        assert "warning: method.queue_size=1408 is more" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("steps", "warmup", "advice"),
    [
        (20, 2.0, "is 20 steps, but the run has only 20"),  # round(2 * 1297 / 128) = 20
        (20, 2.0, "Set --config.optim.warmup_epochs=0.2,"),  # 2 steps of 128 images
        (1, 0.1, "is 1 step, but the run has only 1"),
        (1, 0.1, "Set --config.optim.warmup_epochs=0,"),
        (21, 2.0, ""),
        (1, 0.0, ""),
    ],
)
def test_a_run_inside_its_warm_up_is_told(steps, warmup, advice):
    config = digits(train__steps=steps, optim__warmup_epochs=warmup)
    source = sources.open_source("digits", data_dir="", split="train")
    parts = type("Parts", (), {"total_steps": steps, "source": source})
    told = build.warnings(config, parts)
    assert advice in told[0] if advice else told == []


def test_more_neighbours_than_examples_and_missing_labels_are_told(start, capsys):
    with pytest.raises(Started):
        start(digits(eval__knn_k=200, eval__max_train=150, eval__labels_per_class=(0,)))
    assert "eval.knn_k=200 is more than the 150 training images" in capsys.readouterr().out
    with pytest.raises(Started):
        start(digits(data__eval_split=""))
    assert "no labelled test images, so knn, linear will not run" in capsys.readouterr().out


@pytest.mark.parametrize(("seed", "valid"), [(-1, False), (0, True), (2**32 - 1, True)])
def test_seeds_that_all_random_generators_accept(seed, valid):
    assert (configuration.problems(digits(train__seed=seed)) == []) == valid
    if valid:
        jax.random.key(seed)
        np.random.default_rng(seed)


def test_a_larger_seed_would_be_a_smaller_one():
    assert jax.random.key(2**32) == jax.random.key(0)
    (problem,) = configuration.problems(digits(train__seed=2**32))
    assert problem == "train.seed=4294967296: a whole number from 0 to 4294967295"


def test_faults_are_reported_together_and_once():
    faults = Faults()
    for text in ("a", "b", "a"):
        with faults.collect():
            raise Fault(text, BAD_DATA)
    with pytest.raises(Fault) as refused:
        faults.check()
    assert str(refused.value) == "2 problems:\n  a\n  b"
    assert refused.value.code == BAD_DATA


def test_a_refused_run_leaves_no_new_workdir(tmp_path):
    new, own = tmp_path / "new", tmp_path / "own"
    own.mkdir()
    values = flags.FlagValues()
    for path in (new, own):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(flags, "FLAGS", values)
            patch.setattr(cli, "start", lambda stop: None)
            values = flags.FlagValues()
            flags.DEFINE_string("workdir", str(path), "", flag_values=values)
            flags.DEFINE_list("allow_change", [], "", flag_values=values)
            values(["program"])
            patch.setattr(flags, "FLAGS", values)
            with pytest.raises(Fault, match="refused"):
                command.run_in_workdir(_refuse, lambda stop: (digits(), ""))
    assert not new.exists()
    assert [file.name for file in own.iterdir()] == [".lock"]


def _refuse(config, run, stop):
    assert (run.path / ".lock").exists()
    raise Fault("refused", BAD_CONFIG)
