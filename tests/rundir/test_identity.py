"""The identity of a process: each field that may differ between hosts is part of it."""

import importlib.metadata
import os
import pathlib
import shutil
import sys

import numpy as np
import pytest

from ssl_jax import config as configuration
from ssl_jax import plugins
from ssl_jax.data import digits, folder, source
from ssl_jax.data import identity as files_identity
from ssl_jax.errors import BAD_DATA
from ssl_jax.rundir import identity


@pytest.fixture
def compared(monkeypatch):
    """Returns a list that receives the (fields, exit code) of each comparison."""
    calls = []

    def record(topic, fields, *, code, advice, timeout=0):
        calls.append((fields(), code))

    monkeypatch.setattr(identity, "require_equal", record)
    return calls


def differing(before, after):
    return {name for name in before | after if before.get(name) != after.get(name)}


def command(**changes):
    config = configuration.default_config()
    for name, value in changes.items():
        section, _, field = name.partition("__")
        with config.unlocked():
            config[section][field] = value
    return identity._command(config)


CHANGES = {
    "train.seed": 1,
    "train.steps": 7,
    "train.log_every": 3,  # free on resume, but the processes of a job must log together
    "train.checkpoint_every": 3,
    "optim.lr": 0.5,
    "method.temperature": 0.5,
    "augment.size": 24,
    "data.eval_split": "",
    "eval.knn_k": 20,
    "parallel.fsdp": 2,
}


def test_every_config_field_is_compared():
    changed = command(**{name.replace(".", "__"): value for name, value in CHANGES.items()})
    assert differing(command(), changed) == CHANGES.keys()
    assert {name: changed[name] for name in CHANGES} == CHANGES


def test_hosts_may_keep_the_data_in_different_places():
    assert command(data__dir="/local/1") == command(data__dir="/local/2")


def test_versions_and_settings_are_compared(monkeypatch):
    before = command()
    version = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: "0.0" if name == "jaxlib" else version(name)
    )
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "1")
    after = command()
    assert differing(before, after) == {"version of jaxlib", "TF_ENABLE_ONEDNN_OPTS"}
    assert before["version of jaxlib"] == version("jaxlib")
    assert before["jax_enable_x64"] == "False"


def test_a_changed_file_of_the_package_is_named(tmp_path, monkeypatch):
    package = pathlib.Path(identity.__file__).parents[1]
    copy = tmp_path / "ssl_jax"
    copy.mkdir()
    for name in ("__init__.py", "field.py", "losses/pairs.py"):
        (copy / name).parent.mkdir(exist_ok=True)
        shutil.copy(package / name, copy / name)
    monkeypatch.setattr(sys.modules["ssl_jax"].__spec__, "submodule_search_locations", [str(copy)])
    before = command()
    (copy / ".#field.py").symlink_to("user@host.1234")  # Emacs' mark of a file that is edited
    (copy / ".ipynb_checkpoints").mkdir()
    (copy / ".ipynb_checkpoints" / "field-checkpoint.py").write_text("x = 1\n")
    with (copy / "losses" / "pairs.py").open("a") as file:
        file.write("# changed\n")
    assert differing(before, command()) == {"code of ssl_jax/losses/pairs.py"}


def test_a_file_that_cannot_be_read_is_a_difference(tmp_path, monkeypatch):
    monkeypatch.setattr(
        sys.modules["ssl_jax"].__spec__, "submodule_search_locations", [str(tmp_path)]
    )
    (tmp_path / "field.py").symlink_to("missing.py")
    assert command()["code of ssl_jax/field.py"] == "unreadable: No such file or directory"


def test_modules_of_the_user_are_compared_but_not_imported(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv(plugins.VARIABLE, "")
    (tmp_path / "outside_method.py").write_text("raise SystemExit('imported')\n")
    package = tmp_path / "outside_package"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('imported')\n")
    (package / "helper.py").write_text("x = 1\n")
    names = {"method__name": "outside_method:make", "model__name": "outside_package.sub:Net"}
    before = command(**names)
    (tmp_path / "outside_method.py").write_text("raise SystemExit('again')\n")
    (package / "helper.py").write_text("x = 2\n")
    assert differing(before, command(**names)) == {
        "code of outside_method.py",
        "code of outside_package/helper.py",
    }


def pictures(root, sizes=(10, 20, 30), names=("a/1.png", "a/2.png", "b/3.png")):
    for name, size in zip(names, sizes, strict=True):
        path = root / "train" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * size)
    return source.choose_label(folder.open_folder(str(root), "train"), "")


def data(compared, opened):
    identity.require_same_data(train=opened, test=None)
    fields, code = compared.pop()
    assert code == BAD_DATA
    return fields


def test_names_sizes_classes_and_counts_of_a_folder_are_compared(tmp_path, compared):
    def changed(where, **change):
        return differing(before, data(compared, pictures(tmp_path / where, **change)))

    before = data(compared, pictures(tmp_path / "1"))
    files = "train data: names and sizes of files"
    assert changed("2") == set()
    assert changed("3", sizes=(10, 21, 30)) == {files}
    assert changed("4", names=("a/1.png", "a/other.png", "b/3.png")) == {files}
    assert changed("5", names=("a/1.png", "a/2.png", "c/3.png")) == {files, "train data: class 1"}
    assert changed("6", sizes=(10, 20), names=("a/1.png", "b/3.png")) == {
        files,
        "train data: examples",
    }
    assert before["train data: class 1"] == "b"
    slash = source.choose_label(folder.open_folder(f"{tmp_path}/1/", "train"), "")
    assert data(compared, slash) == before


def test_the_identity_of_a_folder_is_computed_once_and_survives_a_subset(tmp_path, monkeypatch):
    opened = pictures(tmp_path)
    reads = []
    stat = os.stat
    monkeypatch.setattr(files_identity.os, "stat", lambda path: reads.append(path) or stat(path))
    part = source.subset(opened, np.array([1]))
    assert opened.identity() == opened.identity() == part.identity()
    assert len(reads) == 3


def test_sizes_of_a_large_folder_are_sampled_over_all_its_files(monkeypatch):
    monkeypatch.setattr(files_identity, "MAX_SIZES", 4)
    paths, read = [f"/data/{n}" for n in range(10)], []
    monkeypatch.setattr(files_identity, "_size", lambda path: read.append(path) or 1)
    files_identity.of_files(paths, "/data")
    assert sorted(read) == ["/data/0", "/data/2", "/data/5", "/data/7"]


def test_digits_have_a_constant_identity_per_split():
    train, test = digits.open_digits("train"), digits.open_digits("test")
    assert train.identity()[:16] == "db9d54ee777ff161"
    assert train.identity() != test.identity()
    assert train.identity() == digits.open_digits("train", channels=1).identity()


def test_weights_are_compared_by_array(compared):
    weights = {"params": {"kernel": np.float32([1, 2])}, "batch_stats": {"mean": np.zeros(2)}}
    identity.require_same_weights("model.init", weights)
    weights["params"]["kernel"][0] = np.nextafter(np.float32(1), np.float32(2))
    identity.require_same_weights("model.init", weights)
    (before, _), (after, code) = compared
    assert differing(before, after) == {"model.init['params']['kernel']"}
    assert code == BAD_DATA
