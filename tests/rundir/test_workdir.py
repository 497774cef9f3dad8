"""The workdir: one writer, atomic files, and one clear message for each user error."""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from ssl_jax.errors import CANNOT_CREATE, Fault
from ssl_jax.rundir import workdir


def refusal(path):
    with pytest.raises(Fault) as caught, workdir.open_workdir(path):
        pass
    assert caught.value.code == CANNOT_CREATE == 73
    return str(caught.value)


def test_open_workdir_creates_the_folder_and_its_parents(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with workdir.open_workdir("runs/first") as run:
        assert os.fspath(run.path) == str(tmp_path / "runs" / "first")
        assert run.path.is_dir()


def test_absolute_resolves_local_paths_and_keeps_remote_ones(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    assert os.fspath(workdir.absolute("a/../b")) == str(tmp_path / "b")
    assert os.fspath(workdir.absolute("~/run")) == "/home/me/run"
    assert os.fspath(workdir.absolute("gs://bucket/run")) == "gs://bucket/run"


def test_second_writer_is_refused_and_told_the_holder(tmp_path):
    with workdir.open_workdir(tmp_path):
        message = refusal(tmp_path)
        assert f"in use by pid {os.getpid()} on host {socket.gethostname()} since" in message
        assert str(tmp_path) in message
    with workdir.open_workdir(tmp_path):  # the first writer released the lock
        assert f"in use by pid {os.getpid()}" in refusal(tmp_path)


HOLD = """
import sys, time
from ssl_jax.rundir import workdir
with workdir.open_workdir(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_killed_run_leaves_no_lock(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout.readline() == "held\n"
            assert f"in use by pid {holder.pid} on" in refusal(tmp_path)
        finally:
            holder.send_signal(signal.SIGKILL)
    assert (tmp_path / ".lock").read_text().startswith(f"by pid {holder.pid}")
    with workdir.open_workdir(tmp_path):
        assert (tmp_path / ".lock").read_text().startswith(f"by pid {os.getpid()} ")


def test_file_is_refused_as_workdir(tmp_path):
    (tmp_path / "file").write_text("mine")
    message = refusal(tmp_path / "file")
    assert "file" in message
    assert "--workdir" in message
    assert "Not a directory" in refusal(tmp_path / "file" / "below")
    assert (tmp_path / "file").read_text() == "mine"


def test_permission_error_is_a_fault(tmp_path, monkeypatch):
    # `open` is replaced, because root may write anywhere.
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    message = refusal(tmp_path)
    monkeypatch.undo()
    assert f"cannot write the workdir {tmp_path}: Permission denied" in message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    assert "Permission denied" in refusal(tmp_path)
    assert "Permission denied" in refusal(tmp_path / "run")


def test_file_system_without_locks_is_a_warning(tmp_path, monkeypatch, caplog):
    def unsupported(*args):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with workdir.open_workdir(tmp_path) as run:
        assert run.path.is_dir()
    assert "no file locks (Operation not supported)" in caplog.text


def test_write_json_round_trip(tmp_path):
    value = {"b": [1, 0.1, None], "a": {"é": "ü"}}
    workdir.write_json(tmp_path / "x.json", value)
    assert json.loads((tmp_path / "x.json").read_text()) == value
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_workdir_reads_and_writes_json(tmp_path):
    with workdir.open_workdir(tmp_path) as run:
        assert run.read_json("config.json") is None
        run.write_json("config.json", {"a": 1})
        assert run.read_json("config.json") == {"a": 1}
        (tmp_path / "config.json").write_text("{")
        with pytest.raises(Fault, match=r"config\.json is not JSON") as caught:
            run.read_json("config.json")
    assert caught.value.code == 74


def test_failed_write_keeps_the_old_json(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    workdir.write_json(path, {"good": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        workdir.write_json(path, {"bad": float("nan")})

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        workdir.write_json(path, {"bad": 2})
    assert json.loads(path.read_text()) == {"good": 1}


@pytest.mark.parametrize("target", ["file", "missing"])
def test_a_lock_that_is_a_link_is_refused_and_its_target_untouched(tmp_path, target):
    (tmp_path / "file").write_text("precious")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / target)
    assert ".lock: it is a link or a special file. Remove it" in refusal(tmp_path / "run")
    assert (tmp_path / "file").read_text() == "precious"
    assert not (tmp_path / "missing").exists()
