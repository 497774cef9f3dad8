"""A modality, a source, an encoder and a method that live in this file alone.

Two-column numeric series train, resume, evaluate, train in micro-batches on 8 devices and appear in
a report without a line about them in the package. `get_config` makes this file a config as well:

    PYTHONPATH=tests/inputs python -m ssl_jax.train --config=tests/inputs/test_toy_modality.py \
        --workdir=runs/series
"""

import json
import os
import pathlib
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import components, evaluate, finetune, parallel, plugins, train
from ssl_jax import config as configuration
from ssl_jax.data.source import Source
from ssl_jax.errors import BAD_CONFIG, Fault
from ssl_jax.export.__main__ import export
from ssl_jax.field import FINITE, IDENTITY, Field
from ssl_jax.inputs import Input
from ssl_jax.jobs.stop import Stop
from ssl_jax.losses import nt_xent
from ssl_jax.methods import Method
from ssl_jax.models.chain import Chain
from ssl_jax.parallel.mesh import make_mesh
from ssl_jax.pretrained import backbone
from ssl_jax.report import page
from ssl_jax.rundir import workdir
from ssl_jax.training import command

MODULE = "test_toy_modality"
ROOT = pathlib.Path(__file__).resolve().parents[2]
SIZES = {"train": 96, "test": 40}
CLASSES = ("slow", "fast")
LENGTH = 48  # samples of a whole series


# The source: records of series, with two label fields.


def open_series(data_dir, split, *, delay):
    """Sine waves of two frequencies; column 1 is column 0 delayed."""
    del data_dir

    def labels(index):
        return {"frequency": index % 2, "sign": index // 2 % 2}

    def load(index):
        rng = np.random.default_rng([index, SIZES[split]])
        phase = rng.uniform(0, 2 * np.pi) + np.array([0.0, delay])
        angle = np.arange(LENGTH)[:, None] * (0.3, 1.2)[index % 2] + phase
        series = (1 - 2 * labels(index)["sign"]) * np.sin(angle) + 0.3 * rng.normal(
            size=angle.shape
        )
        return {"series": series.astype(np.float32)}, labels(index)

    return Source(
        name="series",
        size=SIZES[split],
        record={"series": (np.float32, (None, 2))},
        load=load,
        describe="series {}".format,
        read_labels=labels,
        class_names={"frequency": CLASSES, "sign": ("up", "down")},
        default_label="frequency",
    )


# The modality: an option of its source, fields of config.augment, their checks, and the input.

DATA_FIELDS = (Field("delay", 0.5, "Delay of column 1, in radians.", FINITE, IDENTITY),)


def default_fields():
    return {"window": 40, "noise": 0.1}  # longer than the zeros of a record that was not read


def problems(augment):
    unknown = [f"augment.{name}: unknown" for name in augment if name not in default_fields()]
    if not 1 <= augment.get("window", 0) <= LENGTH:
        unknown.append(f"augment.window={augment.get('window')!r}: in [1, {LENGTH}]")
    return unknown


def make_input(*, augment, data, evaluation, seed):
    """Two random windows with noise; the evaluation array is the first window, without noise."""
    del data, evaluation
    window, noise = augment["window"], augment["noise"]

    def host(record, epoch, index):
        import tensorflow as tf

        def view(number):
            key = tf.stack([seed + 2 * epoch + number, index])
            last = tf.shape(record["series"])[0] - window
            start = tf.random.stateless_uniform([], key, 0, last + 1, tf.int32)
            crop = tf.ensure_shape(record["series"][start : start + window], [window, 2])
            return crop + noise * tf.random.stateless_normal([window, 2], key)

        return {"views": tf.stack([view(0), view(1)])}

    def evaluated(record):
        import tensorflow as tf

        series = tf.ensure_shape(record["series"][:window], [window, 2])
        return {"series": series, "samples": tf.shape(record["series"])[0]}

    views = {"views": jax.ShapeDtypeStruct((2, window, 2), jnp.float32)}
    return Input(
        record={"series": (np.float32, (None, 2))},
        host=host,
        device=lambda batch: batch,
        shipped=views,
        seen=views,
        evaluate=evaluated,
        evaluated={
            "series": jax.ShapeDtypeStruct((window, 2), jnp.float32),
            "samples": jax.ShapeDtypeStruct((), jnp.int32),
        },
        to_model=lambda arrays: arrays["series"],
        pair=lambda: make_input(augment=augment, data={}, evaluation={}, seed=seed),
        raw_name="raw series",
        description=f"the first {window} samples",
    )


# The encoder and the method.


class Encoder(nn.Module):
    """[n, t, 2] -> [n, 16], for windows of any length."""

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, train):
        del train
        x = nn.relu(nn.Conv(16, (5,), use_bias=False, dtype=self.dtype)(x))
        return nn.Dense(16, use_bias=False, dtype=self.dtype)(x.mean(1))


def make(encoder, run, *, temperature):
    """Contrastive learning on the features themselves."""
    networks = Chain(run.bn_group, run.seen["views"].shape[0], encoder=encoder)

    def init(key, batch):
        return networks.init(key, batch["views"])[0], {}

    def encode(params, extra, batch, key):
        outputs, stats = networks(params, {"encoder": {}}, batch["views"])
        return {"features": outputs["encoder"]}, stats

    def objective(params, extra, outputs, key, step):
        loss, metrics = nt_xent(outputs["features"], temperature=temperature)
        return loss, (extra, metrics)

    def features(params, extra, x):
        return networks.features(params, {"encoder": {}}, x)

    return Method(init, encode, objective, features, after_update=lambda params, extra, *_: extra)


# The config.


def get_config():
    config = configuration.default_config(f"{MODULE}:open_series")
    config.method = {"name": f"{MODULE}:make", "temperature": 0.2}
    config.model = {"name": f"{MODULE}:Encoder", "dtype": "float32", "bn_group": 0, "init": ""}
    config.optim.update(
        name="adamw", lr=1e-2, lr_rule="constant", schedule="constant", warmup_epochs=0.0,
        weight_decay=0.0, momentum=0.9,
    )  # fmt: skip
    config.train.update(batch_size=32, steps=4, log_every=1, checkpoint_every=2)
    config.eval.update(labels_per_class=(0,), knn_k=5, batch_size=32)
    return config


# The tests.


@pytest.fixture(autouse=True)
def allowed(monkeypatch):
    monkeypatch.setenv(plugins.VARIABLE, MODULE)


def run(config, path, monkeypatch, devices, verb=train.train):
    mesh = make_mesh(jax.devices()[:devices])
    monkeypatch.setattr(parallel, "make_mesh", lambda **_: mesh)
    assert not configuration.problems(config)
    with workdir.open_workdir(path) as folder, Stop() as stop:
        command.check_config(config, folder, [])
        verb(config, folder, stop)


def params(path):
    from ssl_jax.pretrained import backbone

    config = configuration.load(path)
    return backbone.modules_from_run(config, path)[0]


def losses(path):
    return [json.loads(line)["loss"] for line in (path / "metrics.jsonl").read_text().splitlines()]


def test_options_of_the_source_are_checked_fields_of_data():
    config = get_config()
    assert config.data.delay == 0.5
    assert "channels" not in config.data  # an option of images
    assert configuration.is_identity("data.delay", config.data.source)
    config.data.delay = 0.0
    series = components.open_source(config, "train").load(0)[0]["series"]
    noise = np.abs(series[:, 0] - series[:, 1]).mean()
    config.data.delay = np.pi
    opposite = components.open_source(config, "train").load(0)[0]["series"]
    assert noise < 0.5 < np.abs(opposite[:, 0] - opposite[:, 1]).mean()
    config.data.delay = -1.0
    assert configuration.problems(config) == ["data.delay=-1.0: a finite number, 0 or more"]


def test_train_resume_evaluate_and_report(tmp_path, monkeypatch):
    config, path = get_config(), tmp_path / "run"
    config.train.steps = 2
    run(config, path, monkeypatch, devices=2)
    longer = get_config()
    longer.train.steps = 4
    with pytest.raises(Fault, match=r"train\.steps"):
        run(longer, path, monkeypatch, devices=2)
    whole = tmp_path / "whole"
    run(longer, whole, monkeypatch, devices=2)
    assert len(losses(whole)) == 4
    assert losses(whole)[:2] == losses(path)
    # The same command again evaluates nothing and keeps the history.
    run(longer, whole, monkeypatch, devices=2)
    assert len(losses(whole)) == 4

    knn = json.loads((whole / "eval" / "knn.json").read_text())
    assert set(knn["results"]) == {f"{MODULE}:make", "untrained encoder", "raw series"}
    assert knn["results"]["raw series"]["n_test"] == SIZES["test"]
    assert knn["results"][f"{MODULE}:make"]["classes"] == 2
    assert knn["protocol"]["view"] == "the first 40 samples"
    label_free = json.loads((whole / "eval" / "label_free.json").read_text())
    assert set(label_free["results"]) == set(knn["results"])
    html = pathlib.Path(page.write(whole)).read_text()
    assert "raw series" in html
    assert not (whole / "figures" / "views.png").exists()
    encoder = backbone.load(whole)
    assert encoder(np.zeros((2, 40, 2), np.float32)).shape == (2, 16)
    with pytest.raises(Fault, match="not a run on images"):
        export(whole, ["npz"], tmp_path / "export", Stop(), head=False, license="")
    changes = {"data": {"delay": 1.0}, "eval": {"protocols": ("knn",)}}
    other = evaluate.config_for_weights(tmp_path / "other", str(whole), changes)
    assert (other.data.delay, other.augment.window) == (1.0, 40)
    evaluate.evaluate(other, tmp_path / "other")
    same = evaluate.config_for_weights(tmp_path / "same", str(whole), changes | {"data": {}})
    evaluate.evaluate(same, tmp_path / "same")
    found = json.loads((tmp_path / "same" / "eval" / "knn.json").read_text())
    assert found["results"][f"{MODULE}:make"] == knn["results"][f"{MODULE}:make"]

    tuned = finetune.make_config(str(whole), {"train.steps": 2, "train.batch_size": 32})
    run(tuned, tmp_path / "tuned", monkeypatch, devices=2, verb=finetune.finetune)
    result = json.loads((tmp_path / "tuned" / "eval" / "finetune.json").read_text())
    assert result["results"][f"{MODULE}:make"]["n_test"] == SIZES["test"]


def test_micro_batches_on_8_devices_equal_the_whole_batch_on_one(tmp_path, monkeypatch):
    runs = []
    for devices, microbatch in ((1, 0), (8, 16)):
        config = get_config()
        config.train.update(steps=2, microbatch=microbatch)
        config.model.bn_group = 4
        config.data.eval_split = ""
        path = tmp_path / str(devices)
        run(config, path, monkeypatch, devices=devices)
        runs.append((losses(path), params(path)))
    (one_loss, one), (eight_loss, eight) = runs
    np.testing.assert_allclose(eight_loss, one_loss, rtol=1e-6)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(eight), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-6)


def test_evaluation_by_another_label_field(tmp_path, monkeypatch):
    """`data.label` chooses the classes of probe and evaluation."""
    config = get_config()
    config.data.label = "sign"
    run(config, tmp_path / "run", monkeypatch, devices=1)
    knn = json.loads((tmp_path / "run" / "eval" / "knn.json").read_text())
    numbers = knn["results"]["raw series"]
    # The sign of a sine with a random phase cannot be predicted; its frequency can.
    assert numbers["accuracy"] < 0.8
    # The finished run keeps its label: its files would show the numbers of the other one.
    config.data.label = ""
    with pytest.raises(Fault, match=r"label was sign, is frequency.*--data\.label"):
        run(config, tmp_path / "run", monkeypatch, devices=1)
    config.data.label = "colour"
    with pytest.raises(Fault, match=r"data\.label='colour'.*frequency, sign") as refused:
        run(config, tmp_path / "other", monkeypatch, devices=1)
    assert refused.value.code == BAD_CONFIG


def test_module_that_is_not_allowed_is_not_imported(tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    config = get_config()
    config.data.source = "evil:open_series"
    path = tmp_path / "run"
    path.mkdir()
    (path / "config.json").write_text(configuration.to_json(config))
    with pytest.raises(Fault, match=r"'evil'.*SSL_JAX_MODULES=evil") as refused:
        evaluate.config_of_run(path)
    assert refused.value.code == BAD_CONFIG


@pytest.mark.slow
def test_public_commands(tmp_path):
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests' / 'inputs'}"}
    environment.pop(plugins.VARIABLE)

    def command(verb, *flags, **variables):
        return subprocess.run(
            [sys.executable, "-m", f"ssl_jax.{verb}", f"--workdir={tmp_path / 'run'}", *flags],
            env=environment | variables, cwd=ROOT, capture_output=True, text=True, timeout=600,
            check=False,
        )  # fmt: skip

    done = command("train", "--config=tests/inputs/test_toy_modality.py")
    assert done.returncode == 0, done.stderr
    assert "raw series" in done.stdout
    done = command("evaluate")
    assert done.returncode == BAD_CONFIG
    assert f"{plugins.VARIABLE}={MODULE}" in done.stderr
    done = command("evaluate", "--data.label=sign", **{plugins.VARIABLE: MODULE})
    assert done.returncode == 0, done.stderr
