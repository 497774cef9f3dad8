"""The atomic writer: old or new content at every moment, and no collision of two writers."""

import contextlib
import os
import stat
import subprocess
import sys
import threading

import numpy as np
import pytest

from ssl_jax.jobs import files
from ssl_jax.jobs.files import atomic_write


def names(folder):
    return sorted(os.listdir(folder))


def test_atomic_write_replaces_the_content(tmp_path):
    path = tmp_path / "x"
    for content in (b"old", b"new"):
        with atomic_write(path) as file:
            file.write(content)
        assert path.read_bytes() == content
    assert names(tmp_path) == ["x"]


def test_atomic_write_shows_nothing_before_the_block_ends(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"old")
    with atomic_write(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
        hidden, shown = names(tmp_path)
        assert shown == "x"
        assert hidden.startswith(".x.")
        # Patterns such as eval/*.json must not match it.
        assert hidden.endswith(".tmp")


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_error_in_the_block_keeps_the_old_file_and_removes_the_temporary_one(tmp_path, error):
    path = tmp_path / "x"
    path.write_bytes(b"old")

    def write():
        with atomic_write(path) as file:
            file.write(b"half")
            raise error

    with pytest.raises(type(error)):
        write()
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["x"]


@pytest.mark.parametrize("call", ["os.fsync", "os.replace"])
def test_failure_of_a_system_call_keeps_the_old_file(tmp_path, monkeypatch, call):
    path = tmp_path / "x"
    path.write_bytes(b"old")

    def fail(*args):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(call, fail)
    with pytest.raises(OSError, match="Input/output error"), atomic_write(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["x"]


KILLED = """
import os, sys
from ssl_jax.jobs.files import atomic_write
os.replace = lambda *args: os._exit(137)
with atomic_write(sys.argv[1]) as file:
    file.write(b"new")
"""


def test_death_between_write_and_rename_leaves_the_old_file(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"old")
    assert subprocess.run([sys.executable, "-c", KILLED, path], check=False).returncode == 137
    assert path.read_bytes() == b"old"
    (hidden,) = set(names(tmp_path)) - {"x"}
    assert (tmp_path / hidden).read_bytes() == b"new"
    with atomic_write(path) as file:  # the next life is not disturbed by it
        file.write(b"newer")
    assert path.read_bytes() == b"newer"


def test_two_writers_do_not_collide(tmp_path):
    path = tmp_path / "x"
    with contextlib.ExitStack() as first, contextlib.ExitStack() as second:
        one = first.enter_context(atomic_write(path))
        two = second.enter_context(atomic_write(path))
        one.write(b"one" * 1000)
        two.write(b"two")
        one.flush()
        two.flush()
        first.close()
        assert path.read_bytes() == b"one" * 1000
        second.close()
        assert path.read_bytes() == b"two"
    assert names(tmp_path) == ["x"]


def test_readers_beside_many_writers_see_whole_files(tmp_path):
    path = tmp_path / "x"
    contents = [bytes([48 + i]) * (1000 + i) for i in range(4)]
    path.write_bytes(contents[0])

    def write(content):
        for _ in range(50):
            with atomic_write(path, durable=False) as file:
                file.write(content)

    threads = [threading.Thread(target=write, args=[content]) for content in contents]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert path.read_bytes() in contents
    for thread in threads:
        thread.join()
    assert names(tmp_path) == ["x"]


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o027, 0o640)])
def test_new_file_has_the_permissions_of_the_process(tmp_path, mask, mode):
    path = tmp_path / "x"
    before = os.umask(mask)
    try:
        with atomic_write(path):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == mode


@pytest.mark.parametrize("durable", [True, False])
def test_durable_write_syncs_the_file_before_the_rename_and_the_folder_after(
    tmp_path, monkeypatch, durable
):
    calls = []
    fsync, replace = os.fsync, os.replace

    def record_fsync(descriptor):
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        calls.append("folder" if is_folder else "file")
        fsync(descriptor)

    def record_replace(*args):
        calls.append("rename")
        replace(*args)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "replace", record_replace)
    with files.atomic_write(tmp_path / "x", durable=durable) as file:
        file.write(b"new")
    assert calls == (["file", "rename", "folder"] if durable else ["rename"])


def test_missing_folder_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "none" / "x"):
        pass


def test_numpy_archives_can_be_written(tmp_path):
    """NumPy seeks in the file, and appends no ending to an open one."""
    with atomic_write(tmp_path / "x.npz") as file:
        np.savez_compressed(file, a=np.arange(3))
    with np.load(tmp_path / "x.npz") as arrays:
        np.testing.assert_array_equal(arrays["a"], np.arange(3))
    assert names(tmp_path) == ["x.npz"]
