"""Whole runs on pairs: train, resume, evaluate, zero-shot on other data, and a folder of pairs."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from configs import clip
from ssl_jax import build, components, evaluate, finetune, parallel
from ssl_jax import config as configuration
from ssl_jax.data import pairs
from ssl_jax.errors import BAD_DATA, Fault
from ssl_jax.inputs.pairs import tokenizer
from ssl_jax.jobs.stop import Stop
from ssl_jax.pretrained import backbone
from ssl_jax.rundir import facts, identity, workdir
from ssl_jax.train import train
from ssl_jax.training import command

RETRIEVAL = [f"{way}_r{k}" for way in ("image_to_text", "text_to_image") for k in (1, 5, 10)]


def small(variant="cifar10_captions", source="captions:digits"):
    """The variant, shrunk until it compiles in seconds."""
    config = clip.get_config(variant)
    config.data.update(source=source, vocabulary=300)
    config.augment.update(size=8, text_length=24)
    config.model.update(name="resnet8", width=0.125, stem="cifar")
    config.method.update(embed_dim=8, text_width=8, text_depth=1, text_heads=2)
    config.train.update(batch_size=32, steps=4, log_every=1, checkpoint_every=2)
    config.eval.update(labels_per_class=(0,), max_train=64, batch_size=128)
    config.eval.protocols = ("retrieval", "zero_shot", "knn")
    config.eval.prompts = ("a photo of the digit {}.", "{}")
    return config


def run(config, path, verb=train):
    assert not configuration.problems(config)
    with workdir.open_workdir(path) as folder, Stop() as stop:
        command.check_config(config, folder, [])
        verb(config, folder, stop)
    return path


def numbers(path, name):
    return json.loads((path / "eval" / f"{name}.json").read_text())["results"]


def losses(path):
    return [json.loads(line)["loss"] for line in (path / "metrics.jsonl").read_text().splitlines()]


def params(path):
    return backbone.modules_from_run(configuration.load(path), path)[0]


@pytest.fixture(scope="module")
def mesh():
    return parallel.make_mesh(jax.devices()[:2])


@pytest.fixture(autouse=True)
def two_devices(mesh, monkeypatch):
    monkeypatch.setattr(parallel, "make_mesh", lambda **_: mesh)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, mesh):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parallel, "make_mesh", lambda **_: mesh)
        return run(small(), tmp_path_factory.mktemp("pairs") / "whole")


@pytest.fixture
def copy(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "run")


def test_a_run_writes_every_evaluation_and_its_tokenizer(whole):
    retrieved = numbers(whole, "retrieval")
    assert set(retrieved) == {"clip", "untrained encoder", "chance"}
    for row in retrieved.values():
        assert row["n_test"] == 500
        assert 150 < row["captions"] <= 180
        assert all(0 <= row[name] <= 1 for name in RETRIEVAL)
        assert row["image_to_text_r1"] <= row["image_to_text_r5"] <= row["image_to_text_r10"]
    assert set(numbers(whole, "zero_shot")) == {"clip", "untrained encoder"}
    assert set(numbers(whole, "knn")) == {"clip", "untrained encoder", "raw pixels"}
    stored = pairs.tokenizer_from_facts(facts.read(whole))
    prompts = [t.format(n) for t in pairs.TEMPLATES for n in "0123456789"]
    assert stored.text == tokenizer.train(prompts, 300).text
    text = (whole / "report.html").read_text()
    assert "Image to text, recall at 1" in text
    assert "Zero-shot" in text
    assert (whole / "figures" / "views.png").exists()


def test_raw_pixels_contain_no_caption(whole):
    """Captions name the class: as features they would classify without error."""
    config = small()
    example = components.make_input(config)
    test = components.open_source(config, "test", facts.read(whole))
    batch = next(components.eval_batches(config, test, batch_size=16))
    x = example.to_model(jax.tree.map(jnp.asarray, batch["input"]))
    assert x.shape == (16, 8, 8, 3)
    assert numbers(whole, "knn")["raw pixels"]["dimensions"] == 8 * 8 * 3


def test_zero_shot_accuracy_equals_a_computation_class_by_class(whole, mesh):
    config = configuration.load(whole)
    given = facts.read(whole)
    test = components.open_source(config, "test", given)
    method = components.make_method(config, 4, 1297, 2)
    from ssl_jax.evals import subjects

    with jax.set_mesh(mesh):
        subject = subjects.subject_from_checkpoint(
            config, whole, mesh, baselines=False, teacher=False
        )
        weights = jax.device_get(subject.weights["trained"])
    reader = pairs.tokenizer_from_facts(given)
    means = []
    for name in test.classes:
        rows = [reader.encode_all([p.replace("{}", name)], 24) for p in config.eval.prompts]
        unit = [np.asarray(method.towers["text"](*weights, jnp.asarray(row)))[0] for row in rows]
        mean = np.mean(unit, 0)
        means.append(mean / np.linalg.norm(mean))
    hits, total = 0, 0
    to_image = components.make_input(config).parts["image"]
    for batch in components.eval_batches(config, test, batch_size=100):
        arrays = jax.tree.map(jnp.asarray, batch["input"])
        image = np.asarray(method.towers["image"](*weights, to_image(arrays)))
        hits += (np.argmax(image @ np.transpose(means), 1) == batch["label"]).sum()
        total += len(image)
    assert total == 500
    assert numbers(whole, "zero_shot")["clip"]["accuracy"] == pytest.approx(hits / total, abs=0.003)


def test_resuming_reproduces_the_same_bits(whole, copy):
    shutil.rmtree(copy / "checkpoints" / "4")
    config = small()
    config.eval.update(protocols=("retrieval",), baselines=False)
    run(config, copy)
    assert losses(copy) == losses(whole)
    for x, y in zip(*map(jax.tree.leaves, (params(copy), params(whole))), strict=True):
        np.testing.assert_array_equal(x, y)


def test_another_tokenizer_is_refused_on_resuming(copy, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(tokenizer.train(["something else"], 300).text)
    config = small()
    config.data.tokenizer = str(path)
    with pytest.raises(
        Fault, match=r"a tokenizer or a vocabulary, differs.*Restore the data"
    ) as refused:
        run(config, copy)
    assert refused.value.code == BAD_DATA


def test_evaluation_uses_the_stored_tokenizer_also_for_other_data(copy, tmp_path):
    config = configuration.load(copy)
    for split, count in (("train", 20), ("test", 10)):
        for number in range(count):
            name = ("round_thing", "line")[number % 2]
            (tmp_path / split / name).mkdir(parents=True, exist_ok=True)
            pixels = np.full((9, 9, 3), 9 * number, np.uint8)
            Image.fromarray(pixels).save(tmp_path / split / name / f"{number}.png")
    data = config.data.copy_and_resolve_references()
    data.update(source="captions:folder", dir=str(tmp_path))
    config.eval.update(protocols=("retrieval", "zero_shot"), knn_k=3)
    evaluate.check_config(config, data)
    evaluate.evaluate(config, copy, data)
    (file,) = (copy / "eval").glob("transfer_*zero_shot.json")
    assert json.loads(file.read_text())["results"]["clip"]["n_test"] == 10
    assert numbers(copy, "zero_shot")["clip"]["n_test"] == 500  # unchanged
    (copy / "facts.npz").write_bytes(b"damaged")
    with pytest.raises(Fault, match=r"facts\.npz is damaged") as damaged:
        evaluate.evaluate(config, copy, data)
    assert damaged.value.code == BAD_DATA


def test_a_missing_or_exchanged_tokenizer_stops_every_reader(whole, copy):
    config = configuration.load(copy)
    for known in ({}, pairs._facts(tokenizer.train(["something else"], 300))):
        (copy / "facts.npz").unlink(missing_ok=True)
        facts.write(copy, known)
        for read in (lambda: evaluate.evaluate(config, copy), lambda: backbone.load(copy)):
            with pytest.raises(Fault, match=r"facts\.npz is .*Copy the original") as refused:
                read()
            assert refused.value.code == BAD_DATA
    assert backbone.load(whole).facts.keys() == {"tokenizer"}


def write_pairs(folder, **splits):
    rng = np.random.default_rng(0)
    for split, count in splits.items():
        (folder / split).mkdir(parents=True)
        for number in range(count):
            path = folder / split / f"{number:02}.png"
            Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(path)
            path.with_suffix(".txt").write_text(f"picture number {number} of {split}")


def test_another_folder_of_pairs_is_retrieved_without_labels(copy, tmp_path, capfd):
    config = configuration.load(copy)
    config.eval.update(protocols=("retrieval", "zero_shot"), baselines=False)
    data = config.data.copy_and_resolve_references()
    data.update(source="pairs", dir=str(tmp_path / "other"))
    write_pairs(tmp_path / "other", train=6, test=5)
    for count, split in ((5, "test"), (6, "train (training examples)")):
        evaluate.check_config(config, data)
        evaluate.evaluate(config, copy, data)
        assert "so retrieval is measured (skipped: zero_shot)" in capfd.readouterr().out
        content = json.loads((copy / "eval/transfer_pairs_other_retrieval.json").read_text())
        assert content["results"]["clip"]["n_test"] == count
        assert content["protocol"]["test images"] == f"{split} of pairs"
        shutil.rmtree(tmp_path / "other" / "test", ignore_errors=True)
    assert numbers(copy, "retrieval")["clip"]["n_test"] == 500  # unchanged


def test_other_data_that_cannot_be_evaluated_are_reported(copy, tmp_path, capfd):
    (tmp_path / "train" / "zero").mkdir(parents=True)
    Image.new("RGB", (9, 9)).save(tmp_path / "train" / "zero" / "x.png")
    config = configuration.load(copy)
    config.eval.protocols = ("retrieval", "zero_shot")
    data = config.data.copy_and_resolve_references()
    data.update(source="captions:folder", dir=str(tmp_path))
    evaluate.evaluate(config, copy, data)
    message = "so nothing is measured (skipped: retrieval, zero_shot)"
    assert message in capfd.readouterr().out


def test_the_encoder_of_a_run_is_evaluated_alone(whole, tmp_path):
    changes = {"data": {}, "eval": {"baselines": False}}
    config = evaluate.config_for_weights(tmp_path / "alone", str(whole), changes)
    assert config.eval.protocols == ("knn",)
    evaluate.evaluate(config, tmp_path / "alone")
    row = numbers(tmp_path / "alone", "knn")["clip"]
    assert row["accuracy"] == numbers(whole, "knn")["clip"]["accuracy"]


def test_a_bad_test_split_without_labels_is_found_before_training(tmp_path, mesh):
    write_pairs(tmp_path, train=40, test=2)
    for file in (tmp_path / "test").glob("*.txt"):
        file.unlink()
    config = small("folder", "pairs")
    config.optim.warmup_epochs = 0.0
    config.data.dir = str(tmp_path)
    with pytest.raises(Fault, match=r"no image in .*test has a caption") as refused:
        build.parts(config, mesh)
    assert refused.value.code == BAD_DATA


@pytest.mark.slow
def test_fine_tuning_of_the_image_encoder(whole, tmp_path):
    config = finetune.make_config(str(whole), {"train.steps": 2, "train.batch_size": 32})
    path = run(config, tmp_path / "tuned", finetune.finetune)
    assert numbers(path, "finetune")["clip"]["n_test"] == 500


def test_a_folder_of_pairs_without_labels_is_trained_and_retrieved(tmp_path, monkeypatch):
    write_pairs(tmp_path, train=40, test=12)
    compared = []
    monkeypatch.setattr(identity, "require_same_data", lambda **data: compared.append(data))
    config = small("folder", "pairs")
    config.model.update(mean=(0.0,) * 3, std=(1.0,) * 3)
    config.optim.warmup_epochs = 0.0
    config.data.dir = str(tmp_path)
    config.eval.update(protocols=("retrieval", "zero_shot"), baselines=False)
    path = run(config, tmp_path / "run")
    row = numbers(path, "retrieval")["clip"]
    assert (row["n_test"], row["captions"]) == (12, 12)
    assert compared[0]["unlabelled test"].size == 12
    assert not (path / "eval" / "zero_shot.json").exists()
