"""Whole runs: train, resume, evaluate and report, and the errors on the way.

The configs are small versions of real ones: a few steps of the digits variant with a narrow
encoder on 2 virtual devices.
"""

import errno
import importlib
import json
import os
import pathlib
import shutil
import signal
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from PIL import Image

from configs.simclr import get_config
from ssl_jax import components, configs, evaluate, parallel, train
from ssl_jax import config as configuration
from ssl_jax.data import pipeline
from ssl_jax.errors import Fault
from ssl_jax.jobs.stop import Stop
from ssl_jax.methods import Picture, simclr
from ssl_jax.report import page as report_page
from ssl_jax.rundir import manifest, workdir
from ssl_jax.training import command
from ssl_jax.training.log import StepLog

ROOT = pathlib.Path(__file__).resolve().parent.parent
SMALL = {
    "data.eval_split": "",
    "model.width": 0.125,
    "method.hidden_dim": 16,
    "method.output_dim": 8,
    "train.batch_size": 64,
    "train.steps": 6,
    "train.log_every": 1,
    "train.checkpoint_every": 2,
    "eval.baselines": False,
    "eval.draws": 2,
    "eval.labels_per_class": (10,),
}


def small(variant="digits", **overrides):
    """Returns a small version of a variant. Keywords are config fields with "__" for the dot."""
    config = get_config(variant)
    fields = {name.replace("__", "."): value for name, value in overrides.items()}
    with config.unlocked():
        for name, value in (SMALL | fields).items():
            section, field = name.split(".")
            config[section][field] = value
    return config


def run(config, path, allow=(), report=False, devices=2, real=False):
    """Trains like `python -m ssl_jax.train` after its flags are parsed.

    Args:
      config: config of the run.
      path: workdir of the run.
      allow: fields of --allow_change.
      report: write the report and its pictures, which takes seconds.
      devices: number of devices.
      real: use the config's encoder, which takes seconds to trace; else the tiny encoder.
    """
    mesh = parallel.make_mesh(jax.devices()[:devices])
    with (
        pytest.MonkeyPatch.context() as patch,
        workdir.open_workdir(path) as folder,
        Stop() as stop,
    ):
        patch.setattr(parallel, "make_mesh", lambda **_: mesh)
        if not real:
            patch.setattr("ssl_jax.models.get", tiny_encoder)
        if not report:
            patch.setattr("ssl_jax.report.page.write", lambda path: "skipped")
            patch.setattr("ssl_jax.training.preview.draw_views", lambda *args: None)
        command.check_config(config, folder, list(allow))
        train.train(config, folder, stop)


def tiny_encoder(name, *, dtype, **others):
    return tiny.Encoder(dtype=dtype)


def losses(path):
    lines = (path / "metrics.jsonl").read_text().splitlines()
    return {line["step"]: line["loss"] for line in map(json.loads, lines)}


def arrays(path, step):
    """Returns every array of a checkpoint by name; uses only Orbax."""
    import orbax.checkpoint as ocp

    with ocp.StandardCheckpointer() as reader:
        tree = reader.restore(path / "checkpoints" / str(step))
    return {jax.tree_util.keystr(k): v for k, v in jax.tree_util.tree_leaves_with_path(tree)}


def assert_same_run(a, b, step):
    assert losses(a) == losses(b)
    one, two = arrays(a, step), arrays(b, step)
    assert one.keys() == two.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(value, two[name], err_msg=name)


FILES = (
    *("config.json", "metadata.json", "metrics.jsonl", "report.html"),
    *("eval/knn.json", "eval/linear_10.json", "eval/sample.npz", "checkpoints/6/MANIFEST.json"),
    *(f"figures/{name}.png" for name in ("views", "curves", "health", "map", "neighbours")),
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    path = tmp_path_factory.mktemp("finished") / "run"
    run(small(data__eval_split="test", eval__baselines=True), path, report=True, real=True)
    return path


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """An undisturbed run of the tiny encoder, without evaluation."""
    path = tmp_path_factory.mktemp("plain") / "run"
    run(small(), path)
    return path


def test_pictures_of_a_method_are_in_the_report(tmp_path, monkeypatch):
    def make(*args, **fields):
        picture = Picture("mirrored", "Mirror images", "From <left> to right.", draw, ("a", "b"))
        return simclr.make(*args, **fields)._replace(pictures=(picture,))

    def draw(params, extra, images, key):
        return jnp.stack([images, images[:, :, ::-1]], axis=1)

    monkeypatch.setattr("ssl_jax.methods.get", lambda name: make)
    run(small(train__steps=1), tmp_path / "run")
    assert (tmp_path / "run" / "figures" / "mirrored.png").stat().st_size > 1000
    page = report_page.write(tmp_path / "run").read_text()
    assert "<h2>Mirror images</h2>" in page
    assert "From &lt;left&gt; to right." in page


def test_batchnorm_groups_count_only_full_size_views(tmp_path):
    config = small(augment__views=3, augment__local={"views": 4, "size": 8}, model__bn_group=128)
    with pytest.raises(Fault, match=r"192 rows \(3 views per image\)"):
        run(config, tmp_path / "run")


def test_finished_run_has_all_files_and_plausible_numbers(finished):
    for name in FILES:
        assert (finished / name).stat().st_size > 0, name
    assert list(finished.glob("events.out.tfevents.*"))
    assert list(losses(finished)) == [1, 2, 3, 4, 5, 6]
    log = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    for row in log:
        assert 0.1 < row["feature_std"] < 1
        assert 1 < row["effective_rank"] < 32  # the width of this encoder's features
        assert row["feature_alignment"] > 0 > row["feature_uniformity"]
    assert sorted(p.name for p in (finished / "checkpoints").iterdir()) == ["4", "6"]
    knn = json.loads((finished / "eval/knn.json").read_text())
    assert set(knn["results"]) == {"simclr", "untrained encoder", "raw pixels"}
    assert knn["step"] == 6
    # All 500 test images are evaluated. Raw pixels have a known accuracy by 20-NN.
    assert knn["results"]["raw pixels"]["n_test"] == 500
    assert knn["results"]["raw pixels"]["accuracy"] > 0.9


def test_loss_of_the_first_step_is_near_chance(finished):
    # There are 2b - 1 = 127 candidates, and an untrained head hardly prefers any.
    assert abs(losses(finished)[1] - np.log(127)) < 0.5


def test_running_a_finished_run_again_changes_nothing(finished, capfd):
    before = (finished / "metrics.jsonl").read_bytes()
    run(small(data__eval_split="test", eval__baselines=True), finished, real=True)
    assert "resumed at step 6 of 6" in capfd.readouterr().out
    assert (finished / "metrics.jsonl").read_bytes() == before


def test_changed_config_is_refused_by_class_of_the_field(plain, tmp_path):
    path = tmp_path / "run"
    shutil.copytree(plain, path)
    with pytest.raises(Fault, match=r"train.batch_size: was 64, is now 32") as refused:
        run(small(train__batch_size=32), path)
    assert refused.value.code == 78
    with pytest.raises(Fault, match=r"--allow_change=train\.steps") as refused:
        run(small(train__steps=7), path)
    assert refused.value.code == 78
    run(small(train__steps=7, train__log_every=2), path, allow=["train.steps"])
    assert list(losses(path))[-1] == 7


def test_run_stopped_by_signals_resumes_to_the_same_bits(plain, tmp_path, monkeypatch):
    path, to_global = tmp_path / "run", parallel.to_global
    # The first signal stops the run, and the second stops the resumed run.
    for number, code, batches in [(signal.SIGTERM, 75, 2), (signal.SIGINT, 130, 0)]:
        count = iter(range(100))

        def interrupted(batch, mesh, number=number, batches=batches, count=count):
            if next(count) == batches:
                os.kill(os.getpid(), number)
            return to_global(batch, mesh)

        monkeypatch.setattr(parallel, "to_global", interrupted)
        with pytest.raises(Fault, match="saved step") as stopped:
            run(small(), path)
        assert stopped.value.code == code
        assert 3 <= max(losses(path)) < 6
    monkeypatch.undo()
    run(small(), path)
    assert_same_run(path, plain, 6)


def test_run_that_lost_its_checkpoints_is_refused_and_changes_nothing(plain, tmp_path):
    path = shutil.copytree(plain, tmp_path / "run")
    for file in (path / "checkpoints").glob("*/MANIFEST.json"):
        file.unlink()
    refused_without_change(path, "step 6 damaged: MANIFEST.json is missing")
    shutil.rmtree(path / "checkpoints")
    refused_without_change(path, "has no checkpoint, but metrics.jsonl reaches step 6")


def refused_without_change(path, message):
    def content():
        files = [p for p in path.rglob("*") if p.is_file() and p.parent.name != "heartbeat"]
        return {p: p.read_bytes() for p in files if p.name != ".lock"}

    before = content()
    with pytest.raises(Fault, match=message) as refused:
        run(small(), path)
    assert refused.value.code == 76
    assert content() == before


def test_colour_operations_on_the_device_train_as_on_the_host(plain, tmp_path):
    run(small(augment__placement="device"), tmp_path / "run")
    host, device = losses(plain), losses(tmp_path / "run")
    # Pixels and first losses differ only by rounding; later steps amplify it.
    np.testing.assert_allclose(device[1], host[1], rtol=2e-5)
    np.testing.assert_allclose(device[2], host[2], rtol=2e-3)


def test_non_finite_loss_stops_and_keeps_the_last_good_checkpoint(plain, tmp_path, monkeypatch):
    path = tmp_path / "run"
    shutil.copytree(plain, path)
    _poison_views_from(monkeypatch, step=8)
    longer = small(train__steps=10, train__checkpoint_every=1)
    with pytest.raises(Fault, match=r"at step 8\. The last good checkpoint is step 7") as stopped:
        run(longer, path, allow=["train.steps"])
    assert stopped.value.code == 80
    assert (path / "checkpoints" / "7" / "MANIFEST.json").exists()
    assert all(np.isfinite(v).all() for v in arrays(path, 7).values())
    report = json.loads((path / "nonfinite.json").read_text())
    size = json.loads((path / "checkpoints/7/MANIFEST.json").read_text())["meta"]["train_images"]
    _, batch = pipeline.rows(7, size=size, batch_size=64, seed=0)  # counts from 0
    assert [example["index"] for example in report["examples"]] == batch.tolist()
    assert (report["step"], report["metrics"]["grad_norm"]) == (8, "nan")
    assert report["nonfinite_arrays"][0].startswith("params/")


def test_state_that_is_not_finite_is_not_saved(plain, tmp_path, monkeypatch):
    """The update of step 7 is too large, and the loss of step 7 is still finite."""
    path = shutil.copytree(plain, tmp_path / "run")
    monkeypatch.setattr("optax.apply_updates", too_large_update)
    longer = small(train__steps=10, train__checkpoint_every=1)
    with pytest.raises(Fault, match=r"the state after step 7 is not finite: params/") as stopped:
        run(longer, path, allow=["train.steps"])
    assert stopped.value.code == 80
    assert "The last good checkpoint is step 6" in str(stopped.value)
    assert sorted(p.name for p in (path / "checkpoints").iterdir()) == ["4", "6"]


def too_large_update(params, updates):
    return jax.tree.map(lambda p, u: p + u * np.inf, params, updates)


def test_collapse_is_reported_once_between_the_progress_lines(capfd):
    source, writer = types.SimpleNamespace(size=640), types.SimpleNamespace(write=lambda *_: None)
    parts = types.SimpleNamespace(total_steps=6, source=source)
    log = StepLog(small(), parts, writer, check=lambda *_: None, start=0)
    for step in range(1, 7):
        log.add(step, {"loss": 0.1, "grad_norm": 0.1, "feature_std": 0.01})
    log.settle()
    lines = capfd.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["step"] * 3 + ["warning:"] + ["step"] * 3
    assert "feature_std is 0.01" in lines[3]


def _poison_views_from(patch, step):
    to_global, count = parallel.to_global, iter(range(7, 100))

    def poisoned(batch, mesh):
        if next(count) >= step:
            batch = batch | {"views": batch["views"] * np.float32("nan")}
        return to_global(batch, mesh)

    patch.setattr(parallel, "to_global", poisoned)


def test_batch_that_does_not_divide_over_the_devices_is_refused(tmp_path):
    with pytest.raises(Fault, match="8 devices; nearest valid sizes: 96, 104") as refused:
        run(small(train__batch_size=100), tmp_path / "run", devices=8)
    assert refused.value.code == 78
    # The refused config was not stored in the workdir.
    run(small(train__batch_size=96, train__steps=1), tmp_path / "run", devices=8)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"model__bn_group": 48}, "bn_group=48 does not divide the batch: 128 rows"),
        (
            {"model__bn_group": 8, "train__microbatch": 20, "train__batch_size": 60},
            "one device's rows of a micro-batch: 20 rows",
        ),
        ({"model__sk_ratio": 0.0625}, "selective kernels need resnet50"),
        ({"method__head_depth": -1}, "depth -1"),
    ],
)
def test_impossible_models_are_refused_before_compiling(fields, text, tmp_path):
    with pytest.raises(Fault, match=text) as refused:
        run(small(**fields), tmp_path / "run", real=True)
    assert refused.value.code == 78


def test_micro_batches_with_batchnorm_groups_train_as_the_whole_batch(tmp_path):
    fields = {"model__bn_group": 4, "train__steps": 2}
    chunks = {"train__microbatch": 16, "train__noise_scale": True}
    for name, more in (("whole", {}), ("chunked", chunks)):
        run(small(**fields, **more), tmp_path / name)
    lines = (tmp_path / "chunked" / "metrics.jsonl").read_text().splitlines()
    assert all(json.loads(line)["gradient_noise"] > 0 for line in lines)
    whole, chunked = losses(tmp_path / "whole"), losses(tmp_path / "chunked")
    np.testing.assert_allclose(chunked[1], whole[1], rtol=1e-6)
    np.testing.assert_allclose(chunked[2], whole[2], rtol=2e-4)  # Adam amplifies rounding


def test_fewer_examples_than_a_batch_are_refused(tmp_path):
    with pytest.raises(Fault, match="1297 examples < batch 2048") as refused:
        run(small(train__batch_size=2048), tmp_path / "run")
    assert refused.value.code == 65


def test_images_added_to_the_folder_of_a_run_are_refused(tmp_path):
    photographs(tmp_path / "mine", 20)
    run(folder_config(tmp_path / "mine"), tmp_path / "run")
    photographs(tmp_path / "mine" / "more", 3)
    for file in (tmp_path / "mine" / "more").iterdir():
        file.rename(tmp_path / "mine" / f"more_{file.name}")
    (tmp_path / "mine" / "more").rmdir()
    with pytest.raises(Fault, match="train_images was 20, is 23") as refused:
        run(folder_config(tmp_path / "mine"), tmp_path / "run")
    assert refused.value.code == 65


def test_other_pictures_in_the_folder_of_a_run_are_refused(tmp_path):
    photographs(tmp_path / "mine", 20)
    run(folder_config(tmp_path / "mine"), tmp_path / "run")
    shutil.move(tmp_path / "mine", tmp_path / "moved")  # equal data in another place
    run(folder_config(tmp_path / "moved", train__steps=3), tmp_path / "run", ["train.steps"])
    with (tmp_path / "moved" / "007.jpg").open("ab") as file:
        file.write(b"x")
    config = folder_config(tmp_path / "moved", train__steps=3)
    message = "names or sizes of files differ .*Restore the data or use another --workdir"
    with pytest.raises(Fault, match=message) as refused:
        run(config, tmp_path / "run")
    assert refused.value.code == 65
    # A checkpoint of an older version has no hash of the files.
    folder = workdir.absolute(tmp_path / "run" / "checkpoints" / "3")
    content = manifest.verify(folder)
    assert len(content["meta"].pop("files")) == 64
    manifest.write(folder, {k: v for k, v in content.items() if k not in ("format", "files")})
    run(config, tmp_path / "run")


def test_evaluation_without_enough_labels_leaves_the_others(finished, tmp_path, monkeypatch):
    path = tmp_path / "run"
    shutil.copytree(finished, path, ignore=shutil.ignore_patterns("eval", "report.html"))
    monkeypatch.setattr("ssl_jax.evals.files.MAX_SAMPLE", 40)  # few pictures, for speed
    labels = {"data__eval_split": "test", "eval__labels_per_class": (10, 5000)}
    with pytest.raises(Fault, match="5000 labels per class asked") as refused:
        run(small(**labels), path, report=True, real=True)
    assert refused.value.code == 65
    assert (path / "eval" / "linear_10.json").exists()
    assert (path / "report.html").exists()
    run(small(data__eval_split="test"), path, real=True)
    assert (path / "eval" / "knn.json").exists()


@pytest.mark.parametrize(("channels", "real", "first"), [(1, True, "conv1"), (4, False, "Conv_0")])
def test_images_of_other_channels_train(channels, real, first, tmp_path):
    fields = {"train__steps": 2, "augment__placement": "device", "data__channels": channels}
    run(small(**fields), tmp_path / "run", real=real)
    kernel = arrays(tmp_path / "run", 2)[f"['params']['encoder']['{first}']['kernel']"]
    assert kernel.shape[2] == channels
    assert np.isfinite(list(losses(tmp_path / "run").values())).all()


def test_missing_dataset_is_refused(tmp_path):
    with pytest.raises(Fault, match="no_such_dataset") as refused:
        run(small(data__source="tfds:no_such_dataset", data__dir=str(tmp_path)), tmp_path / "run")
    assert refused.value.code == 66


def photographs(folder, count, classes=()):
    """Writes random smooth pictures to one folder, or to class folders."""
    rng = np.random.Generator(np.random.PCG64(1))
    for i in range(count):
        target = folder / classes[i % len(classes)] if classes else folder
        target.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (4, 4, 3), np.uint8)
        Image.fromarray(pixels).resize((40, 32)).save(target / f"{i:03}.jpg")


def folder_config(path, **overrides):
    fields = {"train__batch_size": 16, "train__steps": 2, "data__eval_split": "test"} | overrides
    return small(data__source="folder", data__dir=str(path), **fields)


def test_flat_folder_of_images_trains_and_reports(tmp_path, capfd):
    photographs(tmp_path / "mine", 20)
    run(folder_config(tmp_path / "mine"), tmp_path / "run", report=True)
    assert "no labelled test images" in capfd.readouterr().out
    assert (tmp_path / "run" / "report.html").exists()
    assert "probe_loss" not in (tmp_path / "run" / "metrics.jsonl").read_text()


def folder_variant(path, name="simclr"):
    """Returns the variant `folder` with views of 16 pixels and two steps, as the user gives it."""
    config = importlib.import_module(f"configs.{name}").get_config("folder")
    config.data.dir, config.augment.size, config.train.steps = str(path), 16, 2
    if config.augment.local:
        config.augment.local["size"] = 8
    config.eval.update(protocols=("linear",), draws=1, baselines=False)
    return config


def test_folder_variant_adapts_to_the_images_and_resumes(tmp_path, capfd):
    for split, count in (("train", 36), ("test", 6)):
        photographs(tmp_path / "mine" / split, count, classes=["cat", "dog"])
    given = folder_variant(tmp_path / "mine")
    for text in ("step 2/2", "linear, 10 labels/class"):  # the second run only prints its tables
        config, line = components.adapt_to_data(given)
        run(config, tmp_path / "run")
        assert text in capfd.readouterr().out
        assert "train.batch_size=16, train.epochs=0.888889, optim.warmup_epochs=0.444444" in line
    saved = configuration.load(tmp_path / "run")
    assert configuration.auto_fields(saved) == []
    assert saved.train.batch_size == 16
    photographs(tmp_path / "mine" / "train", 300, classes=["cat", "dog"])
    config, _ = components.adapt_to_data(given)
    with pytest.raises(Fault, match=r"train\.batch_size: was 16, is now 32"):
        run(config, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(configs.names())))
def test_folder_variant_of_every_method_trains(name, tmp_path, monkeypatch):
    for split in ("train", "test"):
        photographs(tmp_path / "mine" / split, 24, classes=["cat", "dog"])

    def encoder(name, *, dtype, **others):
        return tiny.encoder(types.SimpleNamespace(name=name, **others), dtype)

    monkeypatch.setattr("test_train.tiny_encoder", encoder)
    monkeypatch.setattr("ssl_jax.pretrained.classifier.load_teacher", tiny.teacher)
    config, _ = components.adapt_to_data(folder_variant(tmp_path / "mine", name))
    run(config, tmp_path / "run", devices=1)
    assert np.isfinite(list(losses(tmp_path / "run").values())).all()
    assert list((tmp_path / "run" / "eval").glob("*.json"))


def test_folder_of_one_class_is_refused_for_evaluation(tmp_path):
    for split in ("train", "test"):
        photographs(tmp_path / "mine" / split, 20, classes=["cat"])
    with pytest.raises(Fault, match="one class 'cat'") as refused:
        run(folder_config(tmp_path / "mine"), tmp_path / "run")
    assert refused.value.code == 65
    run(folder_config(tmp_path / "mine", data__eval_split=""), tmp_path / "other")


def test_splits_of_other_classes_are_refused(tmp_path):
    photographs(tmp_path / "mine" / "train", 20, classes=["cat", "dog"])
    photographs(tmp_path / "mine" / "test", 20, classes=["cat", "bird"])
    with pytest.raises(Fault, match="different classes: bird, dog") as refused:
        run(folder_config(tmp_path / "mine"), tmp_path / "run")
    assert refused.value.code == 65


def test_html_page_named_jpg_stops_the_run_or_is_replaced(tmp_path):
    photographs(tmp_path / "mine", 20)
    (tmp_path / "mine" / "007.jpg").write_text("<html>404 not found</html>")
    with pytest.raises(Fault, match=r"007\.jpg") as refused:
        run(folder_config(tmp_path / "mine"), tmp_path / "run")
    assert refused.value.code == 65
    quarantine = {"data__on_bad_image": "quarantine", "data__max_bad": 0.1}
    run(folder_config(tmp_path / "mine", **quarantine), tmp_path / "other")
    bad = json.loads((tmp_path / "other" / "bad_images.json").read_text())
    assert [pathlib.Path(name).name for name in bad] == ["007.jpg"]


def test_evaluating_again_with_other_options(finished, tmp_path, capfd):
    path = tmp_path / "run"
    shutil.copytree(finished, path)
    config = configuration.load(path)
    assert config.eval.labels_per_class == (10,)
    config.eval.update(knn_k=5, baselines=False)
    evaluate.evaluate(config, path)
    assert "5-NN" in capfd.readouterr().out
    old, new = (json.loads((p / "eval/linear_10.json").read_text()) for p in (finished, path))
    # Rounding of features decides the last digits of the norm, and with them when the solver stops.
    for numbers in (old["results"]["simclr"], new["results"]["simclr"]):
        for key in ("gradient_norm", "iterations"):
            del numbers[key]
    assert new["results"] == {"simclr": old["results"]["simclr"]}


def test_a_network_disk_that_keeps_the_open_lock_hides_no_message(tmp_path, monkeypatch):
    def rmtree(self):
        raise OSError(errno.ENOTEMPTY, "Directory not empty")

    run = workdir.Workdir(workdir.absolute(tmp_path))
    (tmp_path / ".lock").touch()
    monkeypatch.setattr(type(run.path), "rmtree", rmtree)
    command.remove_unused(run)
    monkeypatch.undo()
    command.remove_unused(run)
    assert not tmp_path.exists()
