"""Saves that fail or are killed: the older step stays, and the error reaches the training loop."""

import shutil

import numpy as np
import pytest
from saved_steps import META, assert_same, fill, make_state, restore, run_python

from ssl_jax.errors import IO_ERROR, Fault
from ssl_jax.rundir import manifest, workdir
from ssl_jax.rundir.checkpoint import Checkpoints


def disk_full(*args):
    raise OSError(28, "No space left on device")


def test_old_steps_are_deleted_only_after_the_new_manifest(tmp_path, monkeypatch):
    fill(tmp_path, [1], keep=1)
    monkeypatch.setattr(manifest, "write", disk_full)
    with pytest.raises(Fault):
        fill(tmp_path, [2], keep=1)
    assert manifest.steps(tmp_path) == [1]


def test_half_deleted_step_does_not_exist(tmp_path, monkeypatch, caplog):
    """A run killed during deletion leaves a folder without manifest; the next run removes it."""
    fill(tmp_path, [1, 2], keep=2)
    monkeypatch.setattr(type(workdir.absolute(tmp_path)), "rmtree", lambda self: None)
    manifest.delete_old(workdir.absolute(tmp_path), keep=1)
    monkeypatch.undo()
    assert (tmp_path / "1").is_dir()
    assert restore(tmp_path)[1] == 2
    assert f"removing {tmp_path / '1'}, left by an unfinished save" in caplog.text
    assert not (tmp_path / "1").exists()


def test_first_save_that_was_killed_leaves_no_step(tmp_path, monkeypatch):
    """Even with all files and the manifest, `1.tmp` is not a step; the run starts at step 0."""
    with monkeypatch.context() as patch:
        patch.setattr(manifest, "publish", lambda *_: None)
        patch.setattr(manifest, "delete_old", lambda *_, keep: None)
        fill(tmp_path, [1])
    assert [p.name for p in tmp_path.iterdir()] == ["1.tmp"]
    assert (tmp_path / "1.tmp" / "MANIFEST.json").exists()
    assert restore(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_failed_deletion_does_not_fail_the_save_and_is_repeated(tmp_path, monkeypatch, caplog):
    fill(tmp_path, [1], keep=1)
    path = type(workdir.absolute(tmp_path))
    rmtree = path.rmtree

    def busy(self):
        if self.name == "1":
            raise OSError(16, "Device or resource busy")
        rmtree(self)

    monkeypatch.setattr(path, "rmtree", busy)
    fill(tmp_path, [2, 3], keep=1)
    assert manifest.steps(tmp_path) == [3]
    assert caplog.text.count("trying again after every save") == 1
    assert f"cannot delete old steps in {tmp_path}: [Errno 16] Device or resource" in caplog.text
    assert (tmp_path / "1").is_dir()
    monkeypatch.undo()
    fill(tmp_path, [4], keep=1)
    assert [p.name for p in tmp_path.iterdir()] == ["4"]


def test_background_error_reaches_the_training_loop(tmp_path, monkeypatch):
    fill(tmp_path, [1])
    with Checkpoints(tmp_path) as checkpoints:
        monkeypatch.setattr(manifest, "write", disk_full)
        checkpoints.save(2, make_state(2), META)
        checkpoints._pending.exception()  # waits until the thread has ended
        with pytest.raises(Fault) as caught:
            checkpoints.check()
        assert caught.value.code == IO_ERROR
        message = str(caught.value)
        assert f"step 2 not saved in {tmp_path}" in message
        assert "No space left on device" in message
        assert " free); the last saved step is 1" in message
        # The error is raised once. The failed save is removed, so that the next one has space.
        checkpoints.check()
        assert [p.name for p in tmp_path.iterdir()] == ["1"]
        monkeypatch.undo()
        checkpoints.save(3, make_state(3), META)
    assert manifest.steps(tmp_path) == [1, 3]


@pytest.mark.parametrize("call", ["close", "save"])
def test_background_error_is_raised_by_the_next_call(tmp_path, monkeypatch, call):
    def no_space(*args):
        raise ValueError("RESOURCE_EXHAUSTED: Error writing\n a wall of text")

    checkpoints = Checkpoints(tmp_path)
    monkeypatch.setattr(manifest, "write", no_space)
    checkpoints.save(1, make_state(1), META)
    with pytest.raises(Fault, match=r"not saved in .*: RESOURCE_EXHAUSTED: Error writing \(needs"):
        checkpoints.save(2, make_state(2), META) if call == "save" else checkpoints.close()
    monkeypatch.undo()
    checkpoints.close()


def test_full_disk_is_detected_before_writing(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 9))
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(Fault) as caught:
        checkpoints.save(1, {"x": np.zeros(50_000, np.float32)}, {})
    assert "disk full (needs 240 kB, 9 B free); no step was saved before" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_failed_write_is_a_fault_and_leaves_no_files(tmp_path):
    """The kernel's limit on file sizes makes the write fail, in a process of its own."""
    script = """
        import resource, signal, sys
        import numpy as np
        from ssl_jax.rundir.checkpoint import Checkpoints
        from ssl_jax.errors import Fault
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        noise = np.random.default_rng(0).random(1_000_000)
        try:
            with Checkpoints(sys.argv[1]) as checkpoints:
                checkpoints.save(1, {"x": noise.astype(np.float32)}, {})
        except Fault as fault:
            print(fault, fault.code)
    """
    result = run_python(script, tmp_path)
    assert result.returncode == 0, result.stderr
    assert f"step 1 not saved in {tmp_path}" in result.stdout
    assert "File too large" in result.stdout
    assert result.stdout.endswith(" 74\n")
    assert result.stderr == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("point", ["save.during_data", "save.before_manifest"])
def test_run_killed_while_saving_resumes_at_the_older_step(tmp_path, point, caplog):
    fill(tmp_path, [1])
    script = """
        import os, sys, time
        import numpy as np
        from ssl_jax.rundir import checkpoint
        crash = checkpoint._crash_at
        def crash_with_data_on_disk(point):
            # Orbax writes in a thread of its own: die only after it has begun.
            while len(os.listdir(sys.argv[1])) < 2:
                time.sleep(0.001)
            crash(point)
        checkpoint._crash_at = crash_with_data_on_disk
        with checkpoint.Checkpoints(sys.argv[1]) as checkpoints:
            checkpoints.save(2, {"x": np.zeros(1000, np.float32)}, {})
        print("survived")
    """
    result = run_python(script, tmp_path, SSLJAX_CRASH_AT=point)
    assert (result.returncode, result.stdout) == (137, "")
    leftovers = {p.name for p in tmp_path.iterdir()} - {"1"}
    assert leftovers
    state, step, _ = restore(tmp_path)
    assert step == 1
    assert_same(state, make_state(1))
    assert [p.name for p in tmp_path.iterdir()] == ["1"]
    assert all(str(tmp_path / name) in caplog.text for name in leftovers)
