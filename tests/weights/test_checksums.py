"""Tests that no export is loaded that has lost, changed, renamed or linked files."""

import hashlib
import json
import os
import random
import shutil

import numpy as np
import pytest
from ml_collections import ConfigDict
from test_load import IMAGES, MODELS, random_backbone

import ssl_jax
from ssl_jax import build, evaluate, finetune
from ssl_jax.errors import BAD_DATA, USAGE, Fault
from ssl_jax.export.subject import Subject
from ssl_jax.export.write import write
from ssl_jax.pretrained import backbone, classifier

FORMATS = ("npz", "torch", "orbax")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Returns (backbone, {format: folder of its export})."""
    path = tmp_path_factory.mktemp("exports")
    subject = Subject(random_backbone(MODELS["resnet"]))
    return subject.backbone, {name: write(subject, name, path).folder for name in FORMATS}


@pytest.fixture
def copy(written, tmp_path):
    """Returns a function that copies the export of a format."""

    def copy_export(name):
        return shutil.copytree(written[1][name], tmp_path / name)

    return copy_export


def files(folder):
    return {str(p.relative_to(folder)): p for p in folder.rglob("*") if p.is_file()}


def refusal(path):
    """Returns the message with which loading `path` is refused."""
    with pytest.raises(Fault) as refused:
        backbone.load(path)
    assert refused.value.code == BAD_DATA
    return str(refused.value)


@pytest.mark.parametrize("name", FORMATS)
def test_check_json_lists_size_and_sha256_of_every_file(written, name):
    folder = written[1][name]
    present = files(folder)
    del present["check.json"]
    listed = json.loads((folder / "check.json").read_text())["files"]
    assert listed.keys() == present.keys()
    for key, path in present.items():
        data = path.read_bytes()
        assert listed[key] == {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}, key


@pytest.mark.parametrize("name", FORMATS)
def test_every_flipped_bit_is_refused(copy, name):
    folder = copy(name)
    backbone.load(folder)
    rng = random.Random(0)
    for key, path in files(folder).items():
        data = path.read_bytes()
        for _ in range(0 if key == "README.md" else 12):
            damaged = bytearray(data)
            damaged[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            path.write_bytes(damaged)
            message = refusal(folder)
            if key != "check.json":
                assert f"{folder} is damaged: {key!r} has another checksum." in message
        path.write_bytes(data)
    backbone.load(folder)


def test_every_verb_that_reads_weights_verifies_them(copy):
    folder = copy("npz")
    data = bytearray((folder / "model.npz").read_bytes())
    data[len(data) // 2] ^= 64
    (folder / "model.npz").write_bytes(data)
    config = ConfigDict({"model": {"init": str(folder)}})
    for path in (folder, folder / "model.npz"):
        for read in (
            ssl_jax.load_backbone,
            finetune._pretraining_config,
            classifier.pretrained_weights,
            lambda path: classifier.load_teacher(str(path), 32, np.float32),
            lambda path: build.with_initial_weights(config, None),
            lambda path: evaluate.config_for_weights(
                folder.parent / "w", str(path), {"data": {"source": "digits"}, "eval": {}}
            ),
        ):
            with pytest.raises(Fault, match=r"'model\.npz' has another checksum") as refused:
                read(path)
            assert refused.value.code == BAD_DATA


def test_missing_added_renamed_and_cut_files_are_named(copy):
    for key, path in files(folder := copy("orbax")).items():
        if key in ("README.md", "check.json"):
            continue
        path.rename(folder / "other")
        assert f"{key!r} is missing, 'other' is not part of it." in refusal(folder)
        (folder / "other").rename(path)
        path.write_bytes((data := path.read_bytes())[:-1])
        assert f"{key!r} has {len(data) - 1:,} bytes, not {len(data):,}." in refusal(folder)
        path.write_bytes(data)
    folder = copy("npz")
    (folder / "model.npz").rename(folder / "renamed.npz")
    for path in (folder, folder / "renamed.npz"):
        assert "'model.npz' is missing, 'renamed.npz' is not part of it" in refusal(path)


@pytest.mark.parametrize("name", FORMATS)
def test_export_without_check_json_is_refused(copy, name):
    folder = copy(name)
    (folder / "check.json").unlink()
    for path in (folder, *folder.glob("model.npz"), *folder.glob("model.safetensors")):
        assert "check.json is missing" in refusal(path)


def test_invalid_lists_of_files_are_refused(copy):
    folder = copy("npz")
    record = json.loads((folder / "check.json").read_text())
    for changes in ({"seal": None}, {"seal": 5}, {"files": {}}, {"files": None}):
        (folder / "check.json").write_text(json.dumps(record | changes))
        assert "check.json has another checksum" in refusal(folder)
    for key in ("seal", "files"):
        (folder / "check.json").write_text(json.dumps({k: record[k] for k in record if k != key}))
        assert "check.json has another checksum" in refusal(folder)
    for value in (5, [], {"model.npz": 3}, {"model.npz": {"size": "x", "sha256": 0}}):
        hostile = {"format": "npz", "files": value}
        text = json.dumps(hostile, sort_keys=True, separators=(",", ":"))
        hostile["seal"] = hashlib.sha256(text.encode()).hexdigest()
        (folder / "check.json").write_text(json.dumps(hostile))
        assert "check.json does not list the files" in refusal(folder)


def test_older_export_without_checksums_loads_with_a_warning(written, copy, caplog):
    folder = copy("orbax")
    record = json.loads((folder / "check.json").read_text())
    for key in ("files", "seal"):
        del record[key]
    (folder / "check.json").write_text(json.dumps(record))
    loaded = backbone.load(folder)
    np.testing.assert_array_equal(loaded(IMAGES), written[0](IMAGES))
    (warning,) = [r.getMessage() for r in caplog.records if r.name == "absl"]
    assert warning.startswith(f"{folder} is not verified: it has no checksums")
    # It must not contain links either: they could lead to any file of the host.
    (data,) = (folder / "backbone/d").iterdir()
    shutil.move(data, folder.parent / "outside")
    data.symlink_to(folder.parent / "outside")
    assert f"'backbone/d/{data.name}' is a link" in refusal(folder)


@pytest.mark.parametrize("name", FORMATS)
def test_links_and_special_files_are_refused(copy, name):
    folder = copy(name)
    outside = folder.parent / "outside"
    for path in files(folder).values():
        shutil.move(path, outside)
        path.symlink_to(outside)
        assert f"{str(path.relative_to(folder))!r} is a link" in refusal(folder)
        path.unlink()
        os.mkfifo(path)
        assert "neither a regular file nor a folder" in refusal(folder)
        path.unlink()
        shutil.move(outside, path)
    outside.mkdir()
    (folder / "x").symlink_to(outside)
    assert "'x' is a link" in refusal(folder)


def test_edited_card_and_files_of_other_tools_do_not_stop_loading(copy):
    folder = copy("torch")
    (folder / "README.md").write_text("my own card")
    for name in ("__pycache__", ".git", ".cache"):
        (folder / name).mkdir()
        (folder / name / "file").write_text("")
    (folder / ".gitattributes").write_text("")
    backbone.load(folder)
    (folder / "README.md").unlink()
    backbone.load(folder)


def test_file_of_another_project_needs_no_checksums(written, tmp_path):
    shutil.copy(written[1]["npz"] / "model.npz", tmp_path)
    np.testing.assert_array_equal(backbone.load(tmp_path / "model.npz")(IMAGES), written[0](IMAGES))


def test_program_is_refused_with_the_formats_purpose(copy):
    folder = copy("npz")
    record = json.loads((folder / "check.json").read_text())
    record = {k: v for k, v in record.items() if k not in ("files", "seal")}
    (folder / "check.json").write_text(json.dumps(record | {"format": "onnx"}))
    with pytest.raises(Fault, match=r"holds a program \(onnx\), not weights") as refused:
        backbone.load(folder)
    assert refused.value.code == USAGE
