"""Runs on small sound files: train, evaluate by several labels and splits, fine-tune, report."""

import json

import jax
import numpy as np
import pytest
import sounds

from configs import barlow_twins, byol, cpc_audio, simclr
from ssl_jax import config as configuration
from ssl_jax import evaluate, finetune, parallel, train
from ssl_jax.errors import BAD_CONFIG, BAD_DATA, Fault
from ssl_jax.export.__main__ import export
from ssl_jax.jobs.stop import Stop
from ssl_jax.parallel.mesh import make_mesh
from ssl_jax.pretrained import backbone
from ssl_jax.rundir import workdir
from ssl_jax.training import command

MODEL = {"strides": (5, 4), "kernels": (10, 8), "channels": 8, "context": 6}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return sounds.write_digits(tmp_path_factory.mktemp("sounds") / "digits")


def make(data, file=cpc_audio, **method):
    config = file.get_config("spoken_digit")
    config.data.dir, config.data.split, config.data.eval_split = str(data), "take>=1", "take<1"
    config.augment.update(window=400, max_seconds=0.25)
    config.model.update(MODEL)
    config.method.update(method)
    config.train.update(batch_size=8, steps=2, log_every=1, checkpoint_every=1)
    config.eval.update(labels_per_class=(0,), knn_k=3, batch_size=8, frames=100)
    return config


def small_cpc(data):
    return make(data, steps=3, contexts=2, negatives="group")


def run(config, path, monkeypatch, devices=2, verb=train.train):
    mesh = make_mesh(jax.devices()[:devices])
    monkeypatch.setattr(parallel, "make_mesh", lambda **_: mesh)
    assert not configuration.problems(config)
    with workdir.open_workdir(path) as folder, Stop() as stop:
        command.check_config(config, folder, [])
        verb(config, folder, stop)


def read(path, name):
    return json.loads((path / "eval" / f"{name}.json").read_text())


def test_train_evaluate_fine_tune_and_load(data, tmp_path, monkeypatch):
    config, path = small_cpc(data), tmp_path / "run"
    config.eval.protocols = ("knn", "linear", "frames")
    run(config, path, monkeypatch)
    names = {"cpc_audio", "untrained encoder", "MFCC", "log-mel"}
    frames, knn = read(path, "frames"), read(path, "knn")
    assert set(frames["results"]) == set(knn["results"]) == names
    own = frames["results"]["cpc_audio"]
    assert own["dimensions"] == 6
    assert own["n_train"] == 18 * 6  # 100 frames of 18 recordings: 6 of each
    assert own["n_test"] == 6 * 17
    assert knn["results"]["MFCC"]["dimensions"] == 2 * 39
    assert knn["results"]["MFCC"]["n_test"] == 6
    assert "100 of each split" in frames["protocol"]["frames"]
    assert (path / "figures" / "views.png").exists()
    assert "MFCC" in (path / "report.html").read_text()

    changed = configuration.load(path)
    changed.eval.update(protocols=("frames",), baselines=False)
    by_speaker = changed.data.copy_and_resolve_references()
    by_speaker.label = "speaker"
    evaluate.evaluate(changed, path, by_speaker)
    assert read(path, "label_speaker_frames")["results"]["cpc_audio"]["classes"] == 3

    unheard = {"split": "take>=1&speaker!=carl", "eval_split": "speaker=carl"}
    changes = {"data": unheard, "eval": {"protocols": ("knn", "frames"), "baselines": False}}
    other = evaluate.config_for_weights(tmp_path / "carl", str(path), changes)
    evaluate.evaluate(other, tmp_path / "carl")
    result = read(tmp_path / "carl", "knn")["results"]["cpc_audio"]
    assert (result["n_train"], result["n_test"]) == (12, 8)

    tuned = finetune.make_config(str(path), {"train.steps": 1, "train.batch_size": 8})
    run(tuned, tmp_path / "tuned", monkeypatch, verb=finetune.finetune)
    assert read(tmp_path / "tuned", "finetune")["results"]["cpc_audio"]["n_test"] == 6
    changes = {"data": {}, "eval": {"protocols": ("frames",), "baselines": False}}
    frozen = evaluate.config_for_weights(tmp_path / "frozen", str(tmp_path / "tuned"), changes)
    evaluate.evaluate(frozen, tmp_path / "frozen")
    assert read(tmp_path / "frozen", "frames")["results"]["cpc_audio"]["dimensions"] == 6

    encoder = backbone.load(path)
    x = np.random.default_rng(0).normal(size=(2, 400)).astype(np.float32)
    padded = {"waveform": np.pad(x, ((0, 0), (0, 99))), "samples": np.full(2, 400, np.int32)}
    np.testing.assert_allclose(encoder(x), encoder(padded), rtol=1e-5, atol=1e-6)
    with pytest.raises(Fault, match="not a run on images"):
        export(path, ["npz"], tmp_path / "export", Stop(), head=False, license="")


def test_micro_batches_on_8_devices_equal_the_whole_batch_on_one(data, tmp_path, monkeypatch):
    runs = []
    for devices, microbatch in ((1, 0), (8, 8)):
        config = small_cpc(data)
        config.train.update(batch_size=16, microbatch=microbatch)
        config.model.bn_group = 1
        config.data.eval_split = ""
        config.eval.protocols = ()
        path = tmp_path / str(devices)
        run(config, path, monkeypatch, devices)
        lines = (path / "metrics.jsonl").read_text().splitlines()
        params = backbone.modules_from_run(configuration.load(path), path)[0]
        runs.append(([json.loads(line)["loss"] for line in lines], params))
    (one_loss, one), (eight_loss, eight) = runs
    np.testing.assert_allclose(eight_loss, one_loss, rtol=1e-6)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(eight), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("file", [simclr, byol, barlow_twins])
def test_methods_that_compare_views_train_on_sound(file, data, tmp_path, monkeypatch):
    config = make(data, file, hidden_dim=8, output_dim=4)
    config.eval.protocols = ("label_free",) if file is byol else ()
    run(config, tmp_path / "run", monkeypatch)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 2
    assert all(np.isfinite(json.loads(line)["loss"]) for line in lines)
    if file is byol:
        results = read(tmp_path / "run", "label_free")["results"]
        assert set(results) == {"byol", "untrained encoder", "MFCC", "log-mel"}


def test_a_damaged_file_stops_the_run_or_is_replaced(data, tmp_path, monkeypatch):
    broken = tmp_path / "digits"
    broken.mkdir()
    for file in data.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    (broken / "0_anna_1.wav").write_bytes(b"")
    config = small_cpc(broken)
    config.train.steps = 3
    config.data.eval_split = ""
    config.eval.protocols = ()
    with pytest.raises(Fault, match=r"0_anna_1\.wav: the file is empty") as stopped:
        run(config, tmp_path / "stopped", monkeypatch)
    assert stopped.value.code == BAD_DATA
    config.data.on_bad_image = "quarantine"
    run(config, tmp_path / "replaced", monkeypatch)
    assert "0_anna_1.wav" in (tmp_path / "replaced" / "bad_images.json").read_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": "digits"}, "encoder takes 'audio'"),
        ({"sample_rate": 16000}, "encoder was trained with 8000; leave data.sample_rate out"),
        ({"chanels": 3}, "data.chanels: the source 'audio' has no such field"),
        ({"patern": "{a}"}, r"did you mean 'data\.pattern'"),
    ],
)
def test_data_that_the_encoder_does_not_take_are_refused(data, tmp_path, changes, message):
    config, run = small_cpc(data), tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text(configuration.to_json(config))
    for call in (
        lambda: evaluate.check_config(config, evaluate.evaluation_data(config, changes, "")),
        lambda: evaluate.config_for_weights(tmp_path, str(run), {"data": changes, "eval": {}}),
        lambda: finetune.make_config(str(run), {f"data.{k}": v for k, v in changes.items()}),
    ):
        with pytest.raises(Fault, match=message) as refused:
            call()
        assert refused.value.code == BAD_CONFIG


def test_views_of_images_are_refused_for_sound():
    with pytest.raises(Fault, match="variant 'spoken_digit' has no images"):
        byol.get_config("spoken_digit,augment=byol")
