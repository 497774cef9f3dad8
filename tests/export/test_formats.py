"""Exports read by JAX alone, TensorFlow, NumPy and Orbax; what a failed check keeps."""

import json
import subprocess
import sys

import numpy as np
import pytest
import subjects
from test_train import run, small

from ssl_jax import backbone
from ssl_jax.errors import BAD_CONFIG, NUMERIC, USAGE, Fault
from ssl_jax.export import FORMATS, check
from ssl_jax.export import __main__ as verb
from ssl_jax.export.subject import Subject
from ssl_jax.export.write import write

SMALL = {"name": "resnet8", "width": 0.125, "stem": "cifar"}


@pytest.fixture(scope="module")
def subject():
    return Subject(subjects.backbone(SMALL, 16), name="small")


def expected(subject):
    return np.asarray(subject.backbone(check.images(subject.size)))


def relative(got, want):
    return np.abs(np.asarray(got) - want).max() / np.abs(want).max()


@pytest.mark.parametrize("name", ["npz", "orbax", "torch"])
def test_weights_come_back_as_a_backbone(subject, name, tmp_path):
    written = write(subject, name, tmp_path)
    again = backbone.load(written.folder)
    assert relative(again(check.images(16)), expected(subject)) < 1e-6
    assert (again.size, again.crop) == (16, 1.0)


def test_a_checks_record_lets_anyone_repeat_it(subject, tmp_path):
    folder = write(subject, "npz", tmp_path).folder
    said = json.loads((folder / "check.json").read_text())
    images = np.random.default_rng(said["input"]["seed"]).uniform(size=said["input"]["shape"])
    got = subject.backbone(images.astype(np.float32))
    assert relative(got, np.array(said["features"])) < said["tolerance"]
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlicense:")
    assert "np.load" in card


def test_stablehlo_runs_where_there_is_only_jax(subject, tmp_path):
    folder = write(subject, "stablehlo", tmp_path).folder
    np.save(tmp_path / "images.npy", np.concatenate([check.images(16)] * 2)[:3])
    code = f"""
import sys
import jax, jax.export, numpy as np
program = jax.export.deserialize(bytearray(open({str(folder / "model.stablehlo")!r}, "rb").read()))
np.save({str(tmp_path / "out.npy")!r}, program.call(np.load({str(tmp_path / "images.npy")!r})))
assert not {{"ssl_jax", "flax", "tensorflow"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=120)
    want = np.concatenate([expected(subject)] * 2)[:3]
    assert relative(np.load(tmp_path / "out.npy"), want) < 1e-5


def test_savedmodel_runs_in_tensorflow(tmp_path):
    subject = Subject(subjects.backbone(SMALL, 16, classes=3), head=True)
    folder = write(subject, "savedmodel", tmp_path).folder
    code = f"""
import sys
import numpy as np, tensorflow as tf
model = tf.saved_model.load({str(folder / "saved_model")!r})
images = np.random.default_rng(0).uniform(size=(2, 16, 16, 3)).astype("float32")[:1]
out = model.signatures["serving_default"](images=tf.constant(images))
np.savez({str(tmp_path / "out.npz")!r}, **{{name: a.numpy() for name, a in out.items()}})
assert "ssl_jax" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    out = np.load(tmp_path / "out.npz")
    features = expected(subject)[:1]
    dense = subject.weights.others["classifier"]["params"]["dense"]
    assert relative(out["features"], features) < 1e-5
    assert relative(out["logits"], features @ dense["kernel"] + dense["bias"]) < 1e-5


def test_a_failed_check_keeps_the_older_export(subject, tmp_path, monkeypatch):
    folder = write(subject, "npz", tmp_path).folder
    before = (folder / "model.npz").read_bytes()
    monkeypatch.setattr("ssl_jax.weights.native.encode", lambda weights: altered(weights))
    with pytest.raises(Fault, match="gives other features") as refused:
        write(subject, "npz", tmp_path)
    assert refused.value.code == NUMERIC
    assert (folder / "model.npz").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["npz"]


def altered(weights):
    from ssl_jax.weights import native, trees

    arrays = {name: np.array(a) for name, a in _plain(weights).items()}
    arrays["params/conv1/kernel"] *= 1.01
    return arrays | {native.MODEL: np.array(json.dumps(trees.tuples(weights.model)))}


def _plain(weights):
    from flax.traverse_util import flatten_dict

    tree = {"params": weights.params, "batch_stats": weights.batch_stats}
    return flatten_dict(tree, sep="/")


@pytest.mark.parametrize("name", ["timm", "torchvision"])
def test_networks_that_the_target_lacks_are_refused_by_reason(subject, name):
    from ssl_jax.export import formats

    with pytest.raises(Fault, match=r"resnet8.*width 0.125.*stem 'cifar'.*--format=torch") as e:
        formats.get(name).refuse(subject)
    assert e.value.code == USAGE


def test_a_head_that_a_format_cannot_hold(subject):
    from ssl_jax.export import formats

    asked = Subject(subject.backbone, head=True)
    with pytest.raises(Fault, match="has no classifier") as refused:
        formats.get("stablehlo").refuse(asked)
    assert refused.value.code == BAD_CONFIG


def test_unknown_formats_are_named():
    with pytest.raises(Fault, match="did you mean 'timm'"):
        verb.chosen(["tim"])
    assert verb.chosen([" npz", "orbax", "npz"]) == ["npz", "orbax"]
    assert len(FORMATS) == 8


def test_from_a_runs_checkpoint_by_the_verb(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    config = small(train__steps=1, train__checkpoint_every=1)
    run(config, tmp_path / "run", real=True)
    path = tmp_path / "run"
    verb.export(path, ["npz"], verb.destination(path, ""), head=True, license="mit")
    assert "np.load" in capsys.readouterr().out
    ours, theirs = backbone.load(path), backbone.load(path / "export" / "npz")
    images = check.images(12)
    assert relative(theirs(images), np.asarray(ours(images))) < 1e-6
    assert theirs.weights.others.keys() == {"head"}
    assert 'license: "mit"' in (path / "export/npz/README.md").read_text()
