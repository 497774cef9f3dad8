"""Tests of `python -m ssl_jax.export`: from a checkpoint to exports, and failures on the way."""

import errno
import json
import os
import signal
import subprocess
import sys
import types

import jax
import numpy as np
import pytest
import tiny
from subjects import assert_near, make_subject, run_code
from test_cli import ssl_jax
from test_finetune import finetuning_config
from test_finetune import run as run_verb
from test_train import run, small

import ssl_jax as package
from ssl_jax import finetune
from ssl_jax.errors import (
    BAD_CONFIG,
    CANNOT_CREATE,
    INTERRUPTED,
    IO_ERROR,
    MISSING_INPUT,
    NUMERIC,
    STOPPED_EARLY,
    USAGE,
    Fault,
)
from ssl_jax.export import __main__ as verb
from ssl_jax.export import write as writing
from ssl_jax.export.formats import npz
from ssl_jax.export.subject import slug

IMAGES = np.random.default_rng(3).uniform(size=(3, 12, 12, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Returns the workdir of a short run with the encoder of its config."""
    path = tmp_path_factory.mktemp("trained") / "my run"
    run(small(train__steps=1, augment__size=12, model__name="resnet8"), path, real=True)
    return path


@pytest.fixture
def export(monkeypatch):
    """Returns a function that runs the command with the given flags."""

    def call(workdir, formats, out="", head=False, license=""):
        values = {"workdir": str(workdir), "format": formats.split(","), "out": str(out)}
        values |= {"head": head, "license": license}
        monkeypatch.setattr("absl.flags.FLAGS", types.SimpleNamespace(**values))
        verb.main()

    return call


def test_export_a_checkpoint(trained, export, capsys):
    export(trained, "stablehlo,orbax,npz,torch", license="apache-2.0")
    printed = capsys.readouterr().out
    backbone = package.load_backbone(trained)
    with jax.default_matmul_precision("highest"):
        expected = np.asarray(backbone(IMAGES))
    for name in ("stablehlo", "orbax", "npz", "torch"):
        folder = trained / "export" / name
        check = json.loads((folder / "check.json").read_text())
        assert check["format"] == name
        assert check["origin"] == backbone.origin
        assert check["model"]["width"] == 0.125
        assert max(check["error"].values()) < 1e-5
        assert f"{folder}\n  relative error: " in printed
        card = (folder / "README.md").read_text()
        assert "apache-2.0" in card
        assert "| architecture | resnet8 (stem=cifar, width=0.125) |" in card
        assert str(trained) not in card  # no paths of this machine
    lines = printed.split("stablehlo\n")[1].split("\n\n")[0].splitlines()[1:]
    usage = "\n".join(line.strip() for line in lines)
    assert_near(run_code(usage, images=IMAGES)["features"], expected)
    assert not [p for p in (trained / "export").iterdir() if p.name.endswith((".new", ".old"))]


def test_export_a_fine_tuned_run_with_its_classifier(tmp_path, export, monkeypatch, capsys):
    run(small(train__steps=1), tmp_path / "pretrained")
    config = finetuning_config(tmp_path / "pretrained", finetune__head_layer=1, train__steps=1)
    run_verb(finetune.finetune, config, tmp_path / "tuned")
    monkeypatch.setattr("ssl_jax.models.get", lambda name, dtype=None, **_: tiny.Encoder())
    export(tmp_path / "tuned", "stablehlo", out=tmp_path / "out", head=True)
    check = json.loads((tmp_path / "out/stablehlo/check.json").read_text())
    assert check["classes"] == list("0123456789")
    assert check["outputs"] == ["features", "logits"]
    assert np.shape(check["logits"]) == (2, 10)
    assert "features, logits = program.call(images)" in capsys.readouterr().out
    with pytest.raises(Fault, match="is behind layers of the projection head") as refused:
        export(tmp_path / "tuned", "torch,orbax", out=tmp_path / "some", head=True)
    assert refused.value.code == BAD_CONFIG
    assert sorted(p.name for p in (tmp_path / "some").iterdir()) == [".lock", "orbax"]
    with pytest.raises(Fault, match=r"^--format=torch --head: the classifier is behind layers"):
        export(tmp_path / "tuned", "torch", out=tmp_path / "none", head=True)
    assert not (tmp_path / "none").exists()


def test_impossible_formats_are_told_first_and_the_others_are_written(trained, export, capsys):
    out = trained.parent / "some"
    with pytest.raises(Fault) as refused:
        export(trained, "timm,npz,torchvision", out=out)
    reasons = [
        "  not timm: timm has no resnet8, only resnet18,",
        "  not torchvision: torchvision has no resnet8, only resnet18,",
    ]
    message = str(refused.value).splitlines()
    assert message[0] == "wrote npz, but not every requested format"
    assert [line.startswith(r) for line, r in zip(message[1:], reasons, strict=True)] == [True] * 2
    assert refused.value.code == USAGE
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "exporting my run, step 1 as npz"
    assert printed[1:4] == [*message[1:], "1 of 1: npz ..."]
    assert sorted(p.name for p in out.iterdir()) == [".lock", "npz"]
    assert package.load_backbone(out / "npz").size == 12


def test_nothing_is_computed_or_written_if_every_format_is_impossible(
    trained, export, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("ssl_jax.export.subject.Subject.forward", None)  # must not be called
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # no onnx
    with pytest.raises(Fault) as refused:
        export(trained, "onnx,timm", out=tmp_path / "none")
    first, onnx, timm = str(refused.value).splitlines()
    assert first == "wrote nothing: no requested format supports my run, step 1"
    assert "not onnx: --format=onnx needs torch, onnx, onnxscript, onnxruntime: pip" in onnx
    assert "not timm: timm has no resnet8" in timm
    assert refused.value.code == MISSING_INPUT
    assert not (tmp_path / "none").exists()
    assert not capsys.readouterr().out


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, STOPPED_EARLY), (signal.SIGINT, INTERRUPTED)]
)
def test_signal_keeps_finished_exports_and_leaves_no_part_of_another(
    trained, export, tmp_path, monkeypatch, number, code
):
    export(trained, "npz", out=tmp_path)
    before = contents(tmp_path / "npz")

    def write(subject, new):
        (new / npz.FILE).write_bytes(b"incomplete")
        os.kill(os.getpid(), number)

    monkeypatch.setattr(npz, "write", write)
    with pytest.raises(Fault, match=r"SIG(TERM|INT): nothing new to save") as stopped:
        export(trained, "orbax,npz", out=tmp_path)
    assert stopped.value.code == code
    assert contents(tmp_path / "npz") == before
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", "npz", "orbax"]
    package.load_backbone(tmp_path / "orbax")


BLOCKED = """
import contextlib, ctypes, pathlib, sys
from ssl_jax.export import atomic_folder
from ssl_jax.jobs import stop
stop.HANDLER_TIMEOUT = 0.2
folder = pathlib.Path(sys.argv[1]) / "timm"
mutex, lock = ctypes.create_string_buffer(64), ctypes.CDLL(None).pthread_mutex_lock
lock(mutex)
with stop.Stop() as s:
    s.set_cleanup(lambda: atomic_folder.recover(folder))
    with atomic_folder.replace_folder(folder) as new:
        (new / "file").write_text("half")
        while True:
            with contextlib.suppress(Exception):  # the signal may arrive before the lock
                print("compiling", flush=True)
                lock(mutex)  # blocks forever, like a compiler
"""


def test_signal_during_a_long_compilation_leaves_no_folder(tmp_path):
    command = [sys.executable, "-c", BLOCKED, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"compiling\n"
        child.send_signal(signal.SIGTERM)
        assert child.wait(timeout=20) == STOPPED_EARLY
    assert not list(tmp_path.iterdir())


def test_links_in_place_of_an_export_are_not_followed(trained, tmp_path, small_subject, export):
    outside, out = tmp_path / "outside", tmp_path / "out"
    for folder in (outside, out):
        folder.mkdir()
    (outside / "file").write_text("mine")
    for name in ("npz", ".npz.new", ".npz.old"):
        for target in (outside, tmp_path / "nowhere"):
            (out / name).symlink_to(target)
            with pytest.raises(Fault, match=f"/{name} is a link, .*--out") as refused:
                writing.write(small_subject, "npz", out)
            assert refused.value.code == CANNOT_CREATE
            (out / name).unlink()
    foreign = tmp_path / "run"
    foreign.mkdir()
    (foreign / "export").symlink_to(outside)
    with pytest.raises(Fault, match=r"into \S+/run/export: it is a link out of") as refused:
        export(foreign, "npz")
    assert refused.value.code == CANNOT_CREATE
    assert contents(outside) == {"file": b"mine"}


def test_only_an_earlier_export_is_replaced(tmp_path, small_subject):
    folder = tmp_path / "npz"
    folder.mkdir()
    (folder / "mine.py").write_text("mine")
    for _ in range(2):
        with pytest.raises(Fault, match=r"/npz exists and is no earlier export.*--out") as refused:
            writing.write(small_subject, "npz", tmp_path)
        assert refused.value.code == CANNOT_CREATE
        assert contents(tmp_path / "npz") == {"mine.py": b"mine"}
    (folder / "mine.py").unlink()
    for _ in range(2):  # an empty folder, then an export
        assert writing.write(small_subject, "npz", tmp_path).folder == folder
        assert "check.json" in contents(folder)


def test_export_that_would_contain_a_link_is_not_kept(tmp_path, small_subject, monkeypatch):
    def write(subject, new):
        original(subject, new)
        (new / "link").symlink_to("/etc/passwd")

    original = npz.write
    monkeypatch.setattr(npz, "write", write)
    with pytest.raises(Fault, match="'link' is a link, and exports must not contain links"):
        writing.write(small_subject, "npz", tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def small_subject():
    return make_subject("dbn", 8, widths=(6, 4))


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_export_with_different_outputs_never_replaces_an_older_one(
    tmp_path, small_subject, monkeypatch
):
    folder = writing.write(small_subject, "npz", tmp_path).folder
    before = contents(folder)

    def write(subject, new):
        file = new / npz.FILE
        original(subject, new)
        with np.load(file) as arrays:
            changed = dict(arrays)
        changed["params/rbm0/kernel"] = changed["params/rbm0/kernel"] * np.float32(1 + 1e-3)
        np.savez(file, **changed)

    original = npz.write
    monkeypatch.setattr(npz, "write", write)
    with pytest.raises(Fault, match="read back by jax, it gives different features") as refused:
        writing.write(small_subject, "npz", tmp_path)
    assert refused.value.code == NUMERIC
    assert contents(folder) == before
    assert [p.name for p in tmp_path.iterdir()] == ["npz"]
    monkeypatch.setattr(npz, "write", original)
    writing.write(small_subject, "npz", tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["npz"]


@pytest.mark.parametrize("renames", [0, 1, 2])
def test_folder_survives_death_of_the_process(tmp_path, renames):
    """A process dies before, between and after the two renames; the next call recovers."""
    folder = tmp_path / "timm"
    folder.mkdir()
    (folder / "text").write_text("old")
    code = f"""
import os, pathlib
from ssl_jax.export import atomic_folder
replace, remaining = os.replace, [{renames}]
def replace_or_die(*paths):
    if not remaining[0]:
        os._exit(9)
    remaining[0] -= 1
    replace(*paths)
atomic_folder.os.replace = replace_or_die
with atomic_folder.replace_folder(pathlib.Path({str(folder)!r})) as new:
    (new / "text").write_text("new")
os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 9
    from ssl_jax.export.atomic_folder import replace_folder

    def fail():
        with replace_folder(folder) as new:
            (new / "text").write_text("never")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert (folder / "text").read_text() == ("new" if renames == 2 else "old")
    assert [p.name for p in tmp_path.iterdir()] == ["timm"]


def test_full_disk_and_unwritable_folder_keep_the_older_export(
    trained, tmp_path, small_subject, export, monkeypatch
):
    folder = writing.write(small_subject, "npz", tmp_path).folder
    before = contents(folder)

    def full(subject, new):
        (new / npz.FILE).write_bytes(b"incomplete")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(npz, "write", full)
    with pytest.raises(Fault, match=r"cannot write .*npz: No space left.*--out") as refused:
        writing.write(small_subject, "npz", tmp_path)
    assert refused.value.code == IO_ERROR
    usage = types.SimpleNamespace(total=2**30, used=2**30, free=2**19)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(Fault, match="an export needs 1 MiB, but 0 MiB are free") as refused:
        writing.write(small_subject, "npz", tmp_path)
    assert refused.value.code == IO_ERROR
    assert contents(folder) == before
    assert [p.name for p in tmp_path.iterdir()] == ["npz"]
    (tmp_path / "file").write_text("")
    with pytest.raises(Fault, match=r"cannot write the out .*writable folder as --out") as refused:
        export(trained, "npz", out=tmp_path / "file" / "inside")
    assert refused.value.code == CANNOT_CREATE


def test_invalid_flags_are_refused(trained, tmp_path, export):
    file = tmp_path / "weights.npz"
    file.write_bytes(b"")
    for arguments, message, code in (
        ((trained, "tim"), "--format=tim: unknown format; did you mean 'timm'", USAGE),
        ((trained, ""), "one or more of timm, torchvision", USAGE),
        ((tmp_path / "no", "npz"), "does not exist", MISSING_INPUT),
        ((file, "npz"), "is a file. Pass the folder for the export as --out", USAGE),
        ((trained, "npz", "", False, "my own\nlicence"), "an identifier such as", USAGE),
        ((trained, "timm"), "^timm has no resnet8", USAGE),
        ((trained, "torch,stablehlo", "", True), "has no classifier", 78),
    ):
        with pytest.raises(Fault, match=message) as refused:
            export(*arguments)
        assert refused.value.code == code


def test_invalid_flags_are_reported_before_jax_is_imported(tmp_path):
    code, message, seconds = ssl_jax("export", f"--workdir={tmp_path}", "--format=timm,onx")
    assert (code, "did you mean 'onnx'" in message) == (USAGE, True), message
    assert seconds < 4


def test_slug_is_safe_in_paths_and_tags():
    assert slug("my run/../../x\n`rm`") == "my-run-..-..-x-rm"
    assert slug("…") == "backbone"


def test_a_relative_out_lies_in_the_workdir(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    (tmp_path / "weights.npz").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    run, file = tmp_path / "run", tmp_path / "weights.npz"
    assert verb.output_folder(run, "") == run / "export"
    assert verb.output_folder(run, "second") == run / "second"
    assert verb.output_folder(run, str(tmp_path / "out")) == tmp_path / "out"
    assert verb.output_folder(file, "out") == tmp_path / "out"
    (run / "export").symlink_to(tmp_path)
    with pytest.raises(Fault, match="export: it is a link out of"):
        verb.output_folder(run, "")
