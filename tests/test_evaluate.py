"""Tests of the verb `evaluate`: protocols, other data, other labels, encoders from elsewhere."""

import dataclasses
import json
import shutil
import sys
import types

import jax
import numpy as np
import pytest
import tiny
from PIL import Image

from configs.simclr import get_config
from ssl_jax import build, components, evaluate, finetune, inputs, parallel, train
from ssl_jax import config as configuration
from ssl_jax.config import same_data
from ssl_jax.data import sources
from ssl_jax.data.labels import sample_indices
from ssl_jax.data.source import choose_label
from ssl_jax.errors import BAD_CONFIG, Fault
from ssl_jax.evals import evaluation, extract, protocols, subjects
from ssl_jax.inputs.image.views import View
from ssl_jax.jobs import bootstrap
from ssl_jax.jobs.stop import Stop
from ssl_jax.report import page
from ssl_jax.rundir import workdir

write_page = page.write  # the fixtures replace it


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
    """Runs `python -m ssl_jax.evaluate --workdir=path --eval.NAME=VALUE --data.NAME=VALUE`."""
    config = configuration.load(path)
    config.eval.update(options)
    section = config.data.copy_and_resolve_references()
    section.update(data or {})
    evaluate.evaluate(config, path, section)


def read(path, name):
    return json.loads((path / "eval" / f"{name}.json").read_text())


def names(path):
    return {file.stem for file in (path / "eval").glob("*.json")}


def test_training_ends_with_the_default_protocols(trained):
    assert names(trained) == {"knn", "linear_5", "label_free"}
    numbers = read(trained, "label_free")["results"]["simclr"]
    assert 1 < numbers["rankme"] <= 8
    assert 0 < numbers["alignment"] < 4
    assert numbers["n_pairs"] == 500
    few = read(trained, "linear_5")["results"]["simclr"]
    assert few["ci95"] == pytest.approx(12.706 * few["std"] / 2**0.5, rel=1e-3)


def test_other_protocols_leave_earlier_files_unchanged(run, capfd):
    before = {name: (run / "eval" / f"{name}.json").read_bytes() for name in names(run)}
    again(run, protocols=("few_shot", "layers", "linear_sgd"))
    assert names(run) == {*before, "few_shot", "layers", "linear_sgd"}
    assert all((run / "eval" / f"{n}.json").read_bytes() == text for n, text in before.items())
    output = capfd.readouterr().out
    for words in ("shots", "linear by layers", "linear by SGD, 2 epochs"):
        assert words in output
    for name in ("few_shot", "layers", "linear_sgd"):
        content = read(run, name)
        assert content["evaluation"] == name
        assert content["step"] == 2
        assert content["protocol"]["view"]
    assert read(run, "few_shot")["results"]["simclr"]["shots"] == [1, 2, 5, 10]
    layers = read(run, "layers")["results"]["simclr"]
    assert layers["layers"] == ["features"]
    assert [len(layers[key]) for key in ("iterations", "gradient_norm")] == [1, 1]
    assert isinstance(layers["converged"], bool)
    assert read(run, "linear_sgd")["protocol"]["steps"] == 2  # 250 images in batches of 250


def test_training_again_reprints_finished_protocols(run, capfd):
    again(run, protocols=("few_shot",))
    config = small()
    assert evaluation.reprint(config, run, 2)
    assert "20-NN" in capfd.readouterr().out
    with pytest.MonkeyPatch.context() as patch:  # the other processes of a job print nothing
        patch.setattr(jax, "process_index", lambda: 1)
        assert evaluation.reprint(config, run, 2)
    assert capfd.readouterr().out == ""
    config.eval.protocols = ("layers",)
    assert not evaluation.reprint(config, run, 2)
    config.eval.update(protocols=("knn",), knn_k=3)
    assert not evaluation.reprint(config, run, 2)


def test_stored_predictions_give_the_accuracies(run):
    again(run, protocols=("linear_sgd",))
    with np.load(run / "eval" / "predictions.npz") as arrays:
        columns = dict(arrays)
    assert set(columns) == {"label", "knn", "linear_5", "linear_sgd"}
    assert {x.dtype.kind for x in columns.values()} == {"i"}
    for name in ("knn", "linear_5", "linear_sgd"):
        share = np.mean(columns[name] == columns["label"])
        assert share == pytest.approx(read(run, name)["results"]["simclr"]["draws"][0])


def test_numbers_of_another_step_are_removed(run):
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


def test_transfer_writes_files_beside_the_runs_own(run, tmp_path):
    before = {file.name: file.read_bytes() for file in (run / "eval").iterdir()}
    data = pictures(tmp_path / "My Colours")
    again(run, data=data, protocols=("knn", "linear", "label_free"), knn_k=3, draws=1)
    prefix = "transfer_folder_my_colours_"
    assert names(run) == {"knn", "linear_5", "label_free"} | {
        prefix + name for name in ("knn", "linear_5", "label_free")
    }
    for name, text in before.items():
        assert (run / "eval" / name).read_bytes() == text, "the run's own files changed"
    content = read(run, prefix + "knn")
    assert content["data"].startswith("folder")
    numbers = content["results"]["simclr"]
    assert (numbers["n_train"], numbers["n_test"], numbers["classes"]) == (12, 12, 2)
    assert numbers["accuracy"] == 1
    assert "data" not in read(run, "knn")


def test_transfer_does_not_open_the_training_data(run, tmp_path, monkeypatch):
    get = sources.open_source

    def absent(name, **options):
        assert name != "digits"
        return get(name, **options)

    monkeypatch.setattr("ssl_jax.data.sources.open_source", absent)
    again(run, data=pictures(tmp_path / "a"), protocols=("knn",))
    assert "transfer_folder_a_knn" in names(run)


def test_another_split_of_the_same_data_is_no_transfer(run):
    again(run, data={"split": "test", "eval_split": "train"}, protocols=("knn",))
    assert read(run, "knn")["results"]["simclr"]["n_test"] == 1297
    assert "knn" in names(run)


def test_pretrained_encoder_is_evaluated_by_the_protocol_of_its_run(trained, tmp_path):
    path = tmp_path / "other"
    changes = {"data": {"source": "digits"}, "eval": {"baselines": False, "max_train": 200}}
    config = evaluate.config_for_weights(path, str(trained), changes)
    assert not path.exists(), "the workdir must wait until the data are found"
    evaluate.evaluate(config, path)
    assert config.augment.size == 12
    own = read(trained, "label_free")["results"]["simclr"]["rankme"]
    assert read(path, "label_free")["results"]["resnet8"]["rankme"] == pytest.approx(own, rel=1e-5)
    assert names(path) == {"knn", "linear_5", "label_free"}
    saved = configuration.load(path)
    assert not configuration.problems(saved)
    # The same workdir can be evaluated again, but a workdir never changes its weights.
    evaluate.evaluate(evaluate.config_for_weights(path, str(trained), changes), path)
    with pytest.raises(Fault, match="holds another run"):
        evaluate.config_for_weights(trained, str(path), changes)
    with pytest.raises(Fault, match="holds another run"):
        evaluate.config_for_weights(path, str(path), changes)


@pytest.mark.parametrize("process", [0, 1])
def test_only_process_0_creates_and_locks_the_workdir_of_weights(process, tmp_path, monkeypatch):
    def run_on_process_0(function):
        return function() if process == 0 else None

    monkeypatch.setattr(bootstrap, "run_on_process_0", run_on_process_0)
    monkeypatch.setattr(evaluate, "_subject", lambda *args, **options: flat_subject())
    monkeypatch.setattr(evaluation, "evaluate", lambda context: None)
    path = tmp_path / "other"
    evaluate.evaluate(get_config("digits"), path)
    assert (path / "config.json").exists() == (process == 0)


def test_shuffled_labels_change_only_protocols_with_labels(run, monkeypatch):
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
    """Returns a subject whose features are the pixels, so that they show what a protocol saw."""
    return subjects.Subject(
        name="flat",
        step=0,
        weights={subjects.TRAINED: np.ones((), np.float32)},
        features=lambda weights, x: x.reshape(len(x), -1) * weights,
        layers=lambda weights, x: {},
        protocols=("knn", "linear"),
    )


@pytest.mark.parametrize("limit", [11, 0])
def test_view_pairs_hold_every_image_once(limit):
    config, mesh = small(), parallel.make_mesh()
    config.eval.batch_size = 96
    plain = View(size=8, crop_area=(1.0, 1.0), crop_aspect=(1.0, 1.0), flip=0, jitter=0)
    plain = plain._replace(grayscale=0, blur=0)
    config.augment.update({field: value for field, value in plain._asdict().items()})
    config.augment.second = {}
    source = components.open_source(config, "test")
    example_input = components.make_input(config)
    columns = extract.view_pairs(config, example_input, flat_subject(), mesh, source, limit=limit)
    pairs = columns["trained"]
    chosen = sample_indices(source.size, limit, config.train.seed)
    chosen = np.arange(500) if chosen is None else chosen
    wanted = np.stack([source.load(int(i))[0]["image"].reshape(-1) / 255 for i in chosen])
    assert pairs.shape == (len(chosen), 2, 8 * 8 * 3)
    for view in (0, 1):
        key = lambda x: np.round(x * 255).astype(int)  # noqa: E731
        np.testing.assert_array_equal(
            np.unique(key(pairs[:, view]), axis=0), np.unique(key(wanted), axis=0)
        )


def test_layers_take_fewer_images_than_memory_allows(run, monkeypatch):
    monkeypatch.setattr("ssl_jax.evals.protocols.layers.LAYER_BYTES", 8 * 4 * 120)
    again(run, protocols=("layers",), max_train=0)
    numbers = read(run, "layers")["results"]["simclr"]
    assert (numbers["n_train"], numbers["n_test"]) == (120, 120)
    assert "120 of 1,297" in read(run, "layers")["protocol"]["train images"]


def test_numbers_are_equal_on_one_and_eight_devices(run, monkeypatch):
    results = []
    meshes = {count: parallel.make_mesh(jax.devices()[:count]) for count in (1, 8)}
    for devices, mesh in meshes.items():
        monkeypatch.setattr(parallel, "make_mesh", lambda mesh=mesh, **_: mesh)
        again(run, protocols=("knn", "few_shot", "linear_sgd"))
        results.append([read(run, n)["results"]["simclr"] for n in ("knn", "few_shot")])
        sgd = read(run, "linear_sgd")
        assert sgd["protocol"]["batch_size"] == (250 if devices == 1 else 256)
    assert results[0] == results[1]


def test_moved_data_are_no_transfer_but_another_folder_is():
    for moved, changes, other in (("there", {}, False), ("", {"dir": "there"}, True)):
        config = configuration.default_config()
        config.data.update(source="folder", dir="here")
        data = evaluate.evaluation_data(config, changes, moved)
        assert data.dir == "there"
        assert same_data.is_transfer(config.data, data) == other


def hold_out(run, share, monkeypatch):
    """Makes `run` look like one that held out a share of its images; returns its config."""
    config = configuration.load(run)
    config.data.holdout = share
    (run / "config.json").write_text(configuration.to_json(config))
    monkeypatch.setattr(
        "ssl_jax.rundir.checkpoint.Checkpoints._require_same_config", lambda *_: None
    )
    return config


@pytest.mark.parametrize(
    ("own", "changes", "refused"),
    [
        (0.1, {}, False),
        (0.1, {"eval_split": "other"}, False),
        (0.1, {"holdout": 0.2}, True),
        (0.1, {"split": "test"}, True),
        (0.1, {"holdout": 0.0, "split": "test"}, False),
        (0.0, {"holdout": 0.1}, True),
        (0.0, {"holdout": 0.1, "source": "tfds:mnist"}, False),
    ],
)
def test_no_example_that_was_trained_on_counts_as_held_out(
    run, tmp_path, monkeypatch, own, changes, refused
):
    config = hold_out(run, own, monkeypatch)
    overrides = {f"data.{name}": value for name, value in changes.items()}
    sections = {"data": changes, "eval": {}}
    for call in (
        lambda: evaluate.check_config(config, evaluate.evaluation_data(config, changes, "")),
        lambda: finetune.make_config(str(run), overrides),
        lambda: evaluate.config_for_weights(tmp_path / "other", str(run), sections),
    ):
        if refused:
            with pytest.raises(Fault, match=r"trained on examples that would be held out") as fault:
                call()
            assert fault.value.code == BAD_CONFIG
        else:
            call()


def test_other_data_do_not_inherit_the_held_out_part(run, tmp_path, monkeypatch):
    config = hold_out(run, 0.1, monkeypatch)
    changes = {"source": "tfds:mnist"}
    made = evaluate.config_for_weights(tmp_path / "other", str(run), {"data": changes, "eval": {}})
    tuned = finetune.make_config(str(run), {"data.source": "tfds:mnist"})
    transfer = evaluate.evaluation_data(config, changes, "")
    assert [data.holdout for data in (made.data, tuned.data, transfer)] == [0, 0, 0]


def test_untrained_baseline_does_not_start_from_initial_weights(run):
    config = small()
    config.eval.baselines = True
    mesh = parallel.make_mesh()
    weights = []
    for init in ("", str(run)):
        config.model.init = init
        parts = build.parts(config, mesh)
        with jax.set_mesh(mesh):
            subject = subjects.subject_from_run(config, parts, parts.new_state())
            weights.append(subject.weights)
    plain, initialised = weights
    for a, b in zip(
        jax.tree.leaves(plain[subjects.UNTRAINED][0]),
        jax.tree.leaves(initialised[subjects.UNTRAINED][0]),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)
    kernel = [each[subjects.TRAINED][0]["encoder"]["Conv_0"]["kernel"] for each in weights]
    assert np.abs(kernel[0] - kernel[1]).max() > 0


def test_only_weights_of_a_run_bring_their_data(run, tmp_path):
    config = configuration.load(run)
    config.data.max_bad = 0.5
    (run / "config.json").write_text(configuration.to_json(config))
    changes = {"data": {}, "eval": {}}
    made = evaluate.config_for_weights(tmp_path / "other", str(run), changes)
    assert made.data == config.data
    assert made.eval.knn_k == 20
    (tmp_path / "file.npz").write_bytes(b"")
    with pytest.raises(Fault, match=r"brings no data.*--data\.source=folder"):
        evaluate.config_for_weights(tmp_path / "other", str(tmp_path / "file.npz"), changes)
    with pytest.raises(Fault, match=r"brings no data.*--config\.data\.source=folder"):
        finetune.make_config(str(tmp_path / "file.npz"), {})


TOY = '''
"""Protocol `toy`: accuracy of the nearest class mean."""

import numpy as np

from ssl_jax.evals import draws, results
from ssl_jax.evals.protocols import Measured

ORDER = 35


def variants(options):
    return {f"toy_{k}": {"classes": k} for k in (2, 10)}


def run(context, *, classes):
    numbers, predictions = {}, {}
    for name, (train_x, train_y, test_x, test_y) in context.sets.items():
        means = np.stack([train_x[train_y == c].mean(0) for c in range(classes)])
        distance = np.square(test_x[:, None] - means[None]).sum(-1)
        predictions[name] = distance.argmin(1)
        accuracy = float(np.mean(predictions[name] == test_y))
        numbers[name] = draws.summary([accuracy]) | {"n_test": len(test_y)}
    return Measured(numbers, predictions)


def describe(context, results, *, classes):
    return {"classifier": "nearest class mean", "classes": classes} | context.describe_examples()


def heading(protocol):
    return f"nearest of {protocol['classes']} means"
'''


@pytest.fixture
def toy_protocol(tmp_path, monkeypatch):
    folder = tmp_path / "protocols"
    folder.mkdir()
    (folder / "toy.py").write_text(TOY)
    monkeypatch.setattr(protocols, "__path__", [*protocols.__path__, str(folder)])
    yield
    sys.modules.pop("ssl_jax.evals.protocols.toy", None)
    vars(protocols).pop("toy", None)


# The report draws the curves of two steps, which leave no room for axes.
@pytest.mark.filterwarnings("ignore:constrained_layout not applied")
def test_new_protocol_is_one_module(run, toy_protocol, capfd):
    assert "toy" in protocols.names()
    again(run, protocols=("knn", "toy"))
    output = capfd.readouterr().out
    assert "nearest of 2 means  nearest of 10 means  20-NN" in output
    content = read(run, "toy_10")
    assert content["evaluation"] == "toy"
    assert content["protocol"]["classifier"] == "nearest class mean"
    assert content["protocol"]["test images"].startswith("test of")
    with np.load(run / "eval" / "predictions.npz") as arrays:
        share = np.mean(arrays["toy_10"] == arrays["label"])
    assert share == content["results"]["simclr"]["accuracy"]
    config = configuration.load(run)
    config.eval.protocols = ("toy",)
    assert evaluation.reprint(config, run, 2)
    assert "nearest of 10 means" in capfd.readouterr().out
    write_page(run)
    assert "nearest class mean" in (run / "report.html").read_text()


def test_protocols_that_the_modality_lacks_are_skipped_or_refused(run, monkeypatch, capfd):
    make_input = components.make_input
    monkeypatch.setattr(
        components, "make_input", lambda config: make_input(config)._replace(pair=None, light=None)
    )
    # label_free is a default protocol, linear_sgd was asked for.
    with pytest.raises(Fault, match="no lightly augmented views: leave 'linear_sgd' out") as fault:
        again(run, protocols=("label_free", "linear_sgd", "knn"), knn_k=3)
    assert fault.value.code == BAD_CONFIG
    output = capfd.readouterr().out
    assert "skipped label_free: this modality has no pairs of random views" in output
    assert read(run, "knn")["protocol"]["k"] == 3
    again(run, protocols=("label_free",))
    assert "nothing was evaluated" in capfd.readouterr().out


def test_saliency_needs_pictures_and_pixels(run, monkeypatch):
    make_input = components.make_input
    again(run, protocols=("knn",))
    with np.load(run / "eval" / "sample.npz") as sample:
        assert {"image", "saliency"} <= set(sample.files)
    monkeypatch.setattr(
        components, "make_input", lambda config: make_input(config)._replace(picture=None)
    )
    again(run, protocols=("knn",))
    with np.load(run / "eval" / "sample.npz") as sample:
        assert not {"image", "saliency"} & set(sample.files)


def test_method_without_encoder_has_no_layers(run, monkeypatch):
    make_method = components.make_method

    def without_encoder(*args, **options):
        method = make_method(*args, **options)
        return method._replace(modules=lambda params, extra: ({}, {}))

    monkeypatch.setattr(components, "make_method", without_encoder)
    with pytest.raises(
        Fault, match=r"simclr has no encoder: leave 'layers' out of eval\.protocols"
    ):
        again(run, protocols=("layers", "knn"), knn_k=3)
    assert read(run, "knn")["protocol"]["k"] == 3


def test_data_of_another_modality_are_refused(run, monkeypatch):
    monkeypatch.setitem(inputs.MODALITIES, "tones", "sound")
    name = "ssl_jax.inputs.sound"
    monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    config = configuration.load(run)
    data = evaluate.evaluation_data(config, {"source": "tones"}, "")
    message = r"--data\.source=tones holds .* modality 'sound', but .* takes 'image'"
    with pytest.raises(Fault, match=message) as fault:
        evaluate.check_config(config, data)
    assert fault.value.code == BAD_CONFIG
    changes = {"data": {"source": "tones"}, "eval": {}}
    with pytest.raises(Fault, match=message):
        evaluate.config_for_weights(run / "new", str(run), changes)


@pytest.fixture
def two_labels(monkeypatch):
    """Adds the label field "parity" to the digits."""
    get = sources.open_source

    def with_parity(name, *, label="", **options):
        digits = get(name, **options)

        def add(labels):
            return labels | {"parity": labels["label"] % 2}

        def load(index):
            record, labels = digits.load(index)
            return record, add(labels)

        fields = {**digits.class_names, "parity": ("even", "odd")}
        source = dataclasses.replace(
            digits,
            load=load,
            read_labels=lambda index: add(digits.read_labels(index)),
            class_names=fields,
        )
        return choose_label(source, label)

    monkeypatch.setattr("ssl_jax.data.sources.open_source", with_parity)


def test_another_label_field_has_its_own_files(run, two_labels):
    before = {file.name: file.read_bytes() for file in (run / "eval").iterdir()}
    again(run, data={"label": "parity"}, protocols=("knn", "linear"))
    for name, content in before.items():
        assert (run / "eval" / name).read_bytes() == content, "the run's own files changed"
    assert names(run) == {
        "knn",
        "linear_5",
        "label_free",
        "label_parity_knn",
        "label_parity_linear_5",
    }
    content = read(run, "label_parity_knn")
    assert content["label"] == "parity"
    assert content["results"]["simclr"]["classes"] == 2
    assert content["results"]["simclr"]["accuracy"] > 0.5
    # The name of the default field means the run's own label.
    again(run, data={"label": "label"}, protocols=("knn",))
    assert "label" not in read(run, "knn")
    with pytest.raises(Fault, match="no label of this name"):
        again(run, data={"label": "speaker"}, protocols=("knn",))


def test_label_field_is_not_carried_to_other_data():
    config = configuration.default_config()
    config.data.label = "speaker"
    other = evaluate.evaluation_data(config, {"source": "folder", "dir": "here"}, "")
    assert other.label == ""
    named = evaluate.evaluation_data(config, {"source": "folder", "label": "kind"}, "")
    assert named.label == "kind"
    assert evaluate.evaluation_data(config, {"split": "test"}, "").label == "speaker"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"split": "test"}, "data.split='test'"),
        ({"eval_split": "other"}, "data.eval_split='other'"),
        ({"holdout": 0.1}, "data.holdout=0.1"),
        ({"label": "kind"}, ""),
        ({"split": "test", "source": "tfds:mnist"}, ""),
    ],
)
def test_other_splits_do_not_replace_the_results_of_a_run(tmp_path, changes, named):
    config = configuration.default_config()
    data = evaluate.evaluation_data(config, changes, "")
    if named:
        with pytest.raises(Fault, match=rf"{named}.*--workdir=NEW --pretrained={tmp_path}"):
            evaluate.check_splits(config, data, tmp_path)
    else:
        evaluate.check_splits(config, data, tmp_path)
    config.data.eval_split = ""  # a run without evaluation has no results
    if "eval_split" in changes:
        evaluate.check_splits(config, data, tmp_path)
