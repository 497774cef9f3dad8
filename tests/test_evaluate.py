"""The verb and what it writes: protocols one by one, other data, encoders from elsewhere."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
import tiny
from PIL import Image

from configs.simclr import get_config
from ssl_jax import assess, build, components, evaluate, finetune, parallel, train
from ssl_jax import config as configuration
from ssl_jax.assess import images, subjects
from ssl_jax.data import sources
from ssl_jax.errors import Fault
from ssl_jax.inputs.image.views import View
from ssl_jax.jobs.stop import Stop
from ssl_jax.rundir import workdir

ALL = ("few_shot", "layers", "linear_sgd", "linear", "knn", "label_free")


def shrink(patch):
    patch.setattr("ssl_jax.models.get", lambda name, *, dtype, **_: tiny.Encoder(dtype=dtype))
    patch.setattr("ssl_jax.report.page.write", lambda path: "left out")
    patch.setattr("ssl_jax.training.preview.draw_views", lambda *args: None)


@pytest.fixture(autouse=True)
def small_encoder(monkeypatch):
    shrink(monkeypatch)


def small():
    config = get_config("digits")
    config.train.update(steps=2, batch_size=64)
    config.method.update(hidden_dim=16, output_dim=8)
    fields = {"max_train": 250, "draws": 2, "labels_per_class": (5,), "baselines": False}
    config.eval.update(sgd_epochs=2.0, few_shot_draws=2, sgd_lr=(1.0, 10.0), **fields)
    return config


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    path = tmp_path_factory.mktemp("trained") / "run"
    with (
        pytest.MonkeyPatch.context() as patch,
        workdir.open_workdir(path) as folder,
        Stop() as stop,
    ):
        shrink(patch)
        train.train(small(), folder, stop)
    return path


@pytest.fixture
def run(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


def again(path, *, data=None, **options):
    """`python -m ssl_jax.evaluate --workdir=path --eval.NAME=VALUE --data.NAME=VALUE`."""
    config = configuration.load(path)
    config.eval.update(options)
    section = config.data.copy_and_resolve_references()
    section.update(data or {})
    evaluate.evaluate(config, path, section)


def read(path, name):
    return json.loads((path / "eval" / f"{name}.json").read_text())


def names(path):
    return {file.stem for file in (path / "eval").glob("*.json")}


def test_the_automatic_evaluation(trained):
    assert names(trained) == {"knn", "linear_5", "label_free"}
    measured = read(trained, "label_free")["results"]["simclr"]
    assert 1 < measured["rankme"] <= 8
    assert 0 < measured["alignment"] < 4
    assert measured["n_pairs"] == 500
    few = read(trained, "linear_5")["results"]["simclr"]
    assert few["ci95"] == pytest.approx(12.706 * few["std"] / 2**0.5, rel=1e-3)


def test_every_protocol_beside_what_is_there(run, capfd):
    before = {name: (run / "eval" / f"{name}.json").read_bytes() for name in names(run)}
    again(run, protocols=("few_shot", "layers", "linear_sgd"))
    assert names(run) == {*before, "few_shot", "layers", "linear_sgd"}
    assert all((run / "eval" / f"{n}.json").read_bytes() == text for n, text in before.items())
    shown = capfd.readouterr().out
    for words in ("shots", "linear by layers", "linear by SGD, 2 epochs"):
        assert words in shown
    for name in ("few_shot", "layers", "linear_sgd"):
        found = read(run, name)
        assert found["evaluation"] == name
        assert found["step"] == 2
        assert found["protocol"]["view"]
    assert read(run, "few_shot")["results"]["simclr"]["shots"] == [1, 2, 5, 10]
    assert read(run, "layers")["results"]["simclr"]["layers"] == ["features"]
    assert read(run, "linear_sgd")["protocol"]["steps"] == 2  # 250 images in batches of 250


def test_running_the_training_again_prints_what_was_made(run, capfd, monkeypatch):
    again(run, protocols=("few_shot",))
    config = small()
    assert assess.reprint(config, run, 2)
    assert "20-NN" in capfd.readouterr().out
    config.eval.protocols = ("layers",)
    assert not assess.reprint(config, run, 2)
    config.eval.update(protocols=("knn",), knn_k=3)
    assert not assess.reprint(config, run, 2)


def test_predictions_are_those_that_were_counted(run):
    again(run, protocols=("linear_sgd",))
    with np.load(run / "eval" / "predictions.npz") as arrays:
        columns = dict(arrays)
    assert set(columns) == {"label", "knn", "linear_5", "linear_sgd"}
    assert {x.dtype.kind for x in columns.values()} == {"i"}
    for name in ("knn", "linear_5", "linear_sgd"):
        share = np.mean(columns[name] == columns["label"])
        assert share == pytest.approx(read(run, name)["results"]["simclr"]["draws"][0])


def test_numbers_of_another_step_go(run):
    for name in ("knn", "transfer_folder_a_knn"):
        text = json.dumps(read(run, "knn") | {"step": 1})
        (run / "eval" / f"{name}.json").write_text(text)
    again(run, protocols=("label_free",))
    assert names(run) == {"label_free", "linear_5"}
    assert not (run / "eval" / "predictions.npz").exists()


def pictures(folder, classes=("red", "blue"), count=12):
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for i in range(count):
            target = folder / split / classes[i % len(classes)]
            target.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 60, (20, 24, 3), np.uint8)
            pixels[..., 2 * (i % 2)] += 150
            Image.fromarray(pixels).save(target / f"{i}.png")
    return {"source": "folder", "dir": str(folder)}


def test_transfer_to_other_classes(run, tmp_path):
    before = {file.name: file.read_bytes() for file in (run / "eval").iterdir()}
    data = pictures(tmp_path / "My Colours")
    again(run, data=data, protocols=("knn", "linear", "label_free"), knn_k=3, draws=1)
    made = "transfer_folder_my_colours_"
    assert names(run) == {"knn", "linear_5", "label_free"} | {
        made + name for name in ("knn", "linear_5", "label_free")
    }
    for name, text in before.items():
        assert (run / "eval" / name).read_bytes() == text, "the run's own are as they were"
    found = read(run, made + "knn")
    assert found["data"].startswith("folder")
    numbers = found["results"]["simclr"]
    assert (numbers["n_train"], numbers["n_test"], numbers["classes"]) == (12, 12, 2)
    assert numbers["accuracy"] == 1
    assert "data" not in read(run, "knn")


def test_transfer_needs_nothing_of_the_data_trained_on(run, tmp_path, monkeypatch):
    get = sources.open_source

    def absent(name, **options):
        assert name != "digits"
        return get(name, **options)

    monkeypatch.setattr("ssl_jax.data.sources.open_source", absent)
    again(run, data=pictures(tmp_path / "a"), protocols=("knn",))
    assert "transfer_folder_a_knn" in names(run)


def test_another_part_of_the_same_data_is_no_transfer(run):
    again(run, data={"split": "test", "eval_split": "train"}, protocols=("knn",))
    assert read(run, "knn")["results"]["simclr"]["n_test"] == 1297
    assert "knn" in names(run)


def test_an_encoder_from_elsewhere(trained, tmp_path):
    path = tmp_path / "other"
    changes = {"data": {"source": "digits"}, "eval": {"baselines": False, "max_train": 200}}
    config = evaluate.pretrained(path, str(trained), changes)
    assert not path.exists(), "nothing before the data are found"
    evaluate.evaluate(config, path)
    assert config.augment.size == 12
    own = read(trained, "label_free")["results"]["simclr"]["rankme"]
    assert read(path, "label_free")["results"]["resnet8"]["rankme"] == pytest.approx(own, rel=1e-5)
    assert names(path) == {"knn", "linear_5", "label_free"}, "by the protocol of its run"
    saved = configuration.load(path)
    assert not configuration.problems(saved)
    # The same again with another protocol goes beside; another run is never overwritten.
    evaluate.evaluate(evaluate.pretrained(path, str(trained), changes), path)
    with pytest.raises(Fault, match="holds another run"):
        evaluate.pretrained(trained, str(path), changes)
    with pytest.raises(Fault, match="holds another run"):
        evaluate.pretrained(path, str(path), changes)


def test_labels_reach_nothing_but_probes(run, monkeypatch):
    get = sources.open_source

    def shuffled(name, **options):
        source = get(name, **options)
        order = np.random.default_rng(0).permutation(source.size)
        load = lambda i: (source.load(i)[0], source.load(int(order[i]))[1])  # noqa: E731
        return dataclasses.replace(source, load=load)

    again(run, protocols=("knn", "label_free"))
    before = read(run, "label_free"), read(run, "knn")
    with np.load(run / "eval" / "sample.npz") as sample:
        features = sample["features"]
    monkeypatch.setattr("ssl_jax.data.sources.open_source", shuffled)
    again(run, protocols=("knn", "label_free"))
    assert read(run, "label_free") == before[0]
    assert read(run, "knn") != before[1]
    with np.load(run / "eval" / "sample.npz") as sample:
        np.testing.assert_array_equal(sample["features"], features)


def flat_subject():
    """Features are the pixels: what a protocol saw can be read off them."""
    return subjects.Subject(
        name="flat",
        step=0,
        weights={subjects.TRAINED: np.ones((), np.float32)},
        features=lambda weights, images: images.reshape(len(images), -1) * weights,
        layers=lambda weights, images: {},
        protocols=("knn", "linear"),
    )


@pytest.mark.parametrize("limit", [11, 0])
def test_pairs_of_views_hold_every_image_once(limit):
    config, mesh = small(), parallel.make_mesh()
    config.eval.batch_size = 96
    plain = View(size=8, crop_area=(1.0, 1.0), crop_aspect=(1.0, 1.0), flip=0, jitter=0)
    plain = plain._replace(grayscale=0, blur=0)
    config.augment.update({field: value for field, value in plain._asdict().items()})
    config.augment.second = {}
    source = components.open_source(config, "test")
    found = images.pairs(config, flat_subject(), mesh, source, limit)["trained"]
    chosen = images.sample_indices(source.size, limit, config.train.seed)
    chosen = np.arange(500) if chosen is None else chosen
    wanted = np.stack([source.load(int(i))[0]["image"].reshape(-1) / 255 for i in chosen])
    assert found.shape == (len(chosen), 2, 8 * 8 * 3)
    for view in (0, 1):
        key = lambda x: np.round(x * 255).astype(int)  # noqa: E731
        np.testing.assert_array_equal(
            np.unique(key(found[:, view]), axis=0), np.unique(key(wanted), axis=0)
        )


def test_layers_are_held_within_memory(run, monkeypatch):
    monkeypatch.setattr("ssl_jax.assess.protocols.LAYER_BYTES", 8 * 4 * 120)
    again(run, protocols=("layers",), max_train=0)
    numbers = read(run, "layers")["results"]["simclr"]
    assert (numbers["n_train"], numbers["n_test"]) == (120, 120)
    assert "120 of 1,297" in read(run, "layers")["protocol"]["train images"]


def test_one_device_or_eight(run, monkeypatch):
    found = []
    meshes = {count: parallel.make_mesh(jax.devices()[:count]) for count in (1, 8)}
    for devices, mesh in meshes.items():
        monkeypatch.setattr(parallel, "make_mesh", lambda mesh=mesh, **_: mesh)
        again(run, protocols=("knn", "few_shot", "linear_sgd"))
        found.append([read(run, n)["results"]["simclr"] for n in ("knn", "few_shot")])
        sgd = read(run, "linear_sgd")
        assert sgd["protocol"]["batch_size"] == (250 if devices == 1 else 256)
    assert found[0] == found[1]


def test_data_that_moved_are_no_transfer_and_another_folder_is_one():
    for moved, changes, other in (("there", {}, False), ("", {"dir": "there"}, True)):
        config = configuration.default_config()
        config.data.update(source="folder", dir="here")
        data = evaluate.given_data(config, changes, moved)
        assert data.dir == "there"
        assert evaluate.is_transfer(config.data, data) == other


def test_the_untrained_baseline_of_a_run_that_started_from_weights_is_untrained(run):
    config = small()
    config.eval.baselines = True
    mesh = parallel.make_mesh()
    found = []
    for init in ("", str(run)):
        config.model.init = init
        parts = build.parts(config, mesh)
        with jax.set_mesh(mesh):
            found.append(subjects.of_run(config, parts, parts.new_state()).weights)
    plain, started = found
    for a, b in zip(
        jax.tree.leaves(plain[subjects.UNTRAINED][0]),
        jax.tree.leaves(started[subjects.UNTRAINED][0]),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)
    kernel = [weights[subjects.TRAINED][0]["encoder"]["Conv_0"]["kernel"] for weights in found]
    assert np.abs(kernel[0] - kernel[1]).max() > 0


def test_a_runs_encoder_is_evaluated_on_its_data_and_other_weights_on_named_ones(run, tmp_path):
    config = configuration.load(run)
    config.data.max_bad = 0.5
    (run / "config.json").write_text(configuration.to_json(config))
    changes = {"data": {}, "eval": {}}
    found = evaluate.pretrained(tmp_path / "other", str(run), changes)
    assert found.data == config.data
    assert found.eval.knn_k == 20
    (tmp_path / "file.npz").write_bytes(b"")
    with pytest.raises(Fault, match=r"brings no data.*--data\.source=folder"):
        evaluate.pretrained(tmp_path / "other", str(tmp_path / "file.npz"), changes)
    with pytest.raises(Fault, match=r"brings no data.*--config\.data\.source=folder"):
        finetune.make_config(str(tmp_path / "file.npz"), {})
