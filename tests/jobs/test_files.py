"""The atomic writer: old or new content at every moment, and no collision of two writers."""

import contextlib
import errno
import os
import stat
import subprocess
import sys
import threading

import numpy as np
import pytest

from ssl_jax.errors import CANNOT_CREATE, IO_ERROR, Fault
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


@pytest.fixture
def victim(tmp_path):
    """Returns a file outside the workdir tmp_path/run, and checks at the end that it is intact."""
    (tmp_path / "run").mkdir()
    path = tmp_path / "precious"
    path.write_bytes(b"precious")
    yield path
    assert path.read_bytes() == b"precious"


def test_a_link_is_replaced_by_the_file(tmp_path, victim):
    path = tmp_path / "run" / "report.html"
    path.symlink_to(victim)
    files.write(path, "page")
    assert not path.is_symlink()
    assert path.read_text() == "page"


def test_text_is_written_whatever_characters_it_holds(tmp_path):
    files.write(tmp_path / "x", "ä \ud800")
    assert (tmp_path / "x").read_bytes() == b"\xc3\xa4 \\ud800"


@pytest.mark.parametrize("kind", ["link", "dangling link", "fifo"])
def test_append_refuses_what_is_no_regular_file(tmp_path, victim, kind):
    path = tmp_path / "run" / ".lock"
    if kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to(victim if kind == "link" else tmp_path / "new")
    with pytest.raises(Fault, match=r"\.lock: it is a link or a special file") as fault:
        files.append(path)
    assert fault.value.code == CANNOT_CREATE
    assert not (tmp_path / "new").exists()


def test_append_adds_to_the_end_and_reads(tmp_path):
    for line in ("one\n", "two\n"):
        with files.append(tmp_path / "log") as file:
            file.write(line)
            file.flush()
            file.seek(0)
            text = file.read()
    assert text == "one\ntwo\n"


def test_a_folder_that_leaves_the_workdir_is_refused(tmp_path, victim):
    run = tmp_path / "run"
    (tmp_path / "host").mkdir()
    (run / "eval").symlink_to(tmp_path / "host")
    (run / "figures").symlink_to("../missing")
    (run / "inner").mkdir()
    (run / "heartbeat").symlink_to("inner")
    links, parents = ("eval", "eval/below", "figures"), ("..", "../host", "inner/../..")
    for words, cases in (("link out of", links), ("it lies outside", parents)):
        for name in cases:
            with pytest.raises(Fault, match=rf"{words} .*run") as fault:
                files.inside(run, name)
            assert fault.value.code == CANNOT_CREATE
    for name in ("inner", "new", "heartbeat", "inner/../new"):
        assert files.inside(run, name) == run / name
    (tmp_path / "linked").symlink_to(run)  # the workdir itself may be a link
    assert files.inside(tmp_path / "linked", "new") == tmp_path / "linked" / "new"


def test_stale_temporary_files_are_removed_and_nothing_else(tmp_path, victim):
    run, old = tmp_path / "run", files.time.time() - 2 * files.STALE_AFTER
    (run / "eval").mkdir()
    (tmp_path / "host").mkdir()
    (run / "figures").symlink_to(tmp_path / "host")
    stale = [run / ".x.0123abcd.tmp", run / "eval" / ".knn.json.89abcdef.tmp"]
    kept = [run / "x.tmp", run / ".x.tmp", run / ".x.0123abcg.tmp"]
    kept.append(tmp_path / "host" / ".x.0123abcd.tmp")
    for path in (*stale, *kept):
        path.write_bytes(b"")
        os.utime(path, (old, old))
    fresh, link = run / ".y.0123abcd.tmp", run / ".z.0123abcd.tmp"
    fresh.write_bytes(b"")
    link.symlink_to(victim)
    os.utime(link, (old, old), follow_symlinks=False)
    files.remove_stale(run)
    assert not any(path.exists() for path in stale)
    assert all(path.exists() for path in (*kept, fresh, link))


@pytest.mark.parametrize(
    ("number", "code"),
    [(errno.ENOSPC, IO_ERROR), (errno.EDQUOT, IO_ERROR), (errno.EACCES, CANNOT_CREATE)],
)
def test_a_full_disk_and_a_missing_permission_have_different_codes(number, code):
    fault = files.write_fault("page: cannot write", OSError(number, "reason"))
    assert fault.code == code
    assert str(fault) == f"page: cannot write ([Errno {number}] reason)"


def test_reading_refuses_what_is_no_regular_file(tmp_path):
    os.mkfifo(tmp_path / "fifo")  # opening it for reading would wait for a writer
    (tmp_path / "large").write_bytes(b"12345")
    for name, words in (("fifo", "not a regular file"), ("large", "larger than 4 bytes")):
        with pytest.raises(OSError, match=words):
            files.read(tmp_path / name, limit=4)
    assert files.read(tmp_path / "large") == b"12345"
