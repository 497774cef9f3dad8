"""Damaged, foreign and hostile checkpoints: no damage passes, and no wrong step is restored."""

import json
import os
import random
import shutil

import jax.numpy as jnp
import pytest
from saved_steps import (
    assert_same,
    data_files,
    edit_manifest,
    fill,
    make_state,
    refusal,
    restore,
)

from ssl_jax.errors import IO_ERROR
from ssl_jax.rundir import manifest, workdir


def test_damaged_steps_do_not_count_as_kept(directory):
    shutil.rmtree(directory / "400" / "d")
    fill(directory, [450], keep=2)
    assert manifest.steps(directory) == [350, 400, 450]


def test_flipped_bits_are_detected(directory, caplog):
    rng = random.Random(20)
    files = data_files(directory / "400")
    places = [(p, i) for p in files for i in range(p.stat().st_size)]
    for path, index in rng.sample(places, 20):
        original = path.read_bytes()
        flipped = bytearray(original)
        flipped[index] ^= 1 << rng.randrange(8)
        path.write_bytes(flipped)
        caplog.clear()
        assert manifest.newest_intact(workdir.absolute(directory), repair=False) == 350
        name = path.relative_to(directory / "400").as_posix()
        assert f"step 400 damaged: {name}" in caplog.text
        path.write_bytes(original)
    assert restore(directory)[1] == 400


def test_restore_skips_and_quarantines_damaged_steps(directory, caplog):
    victim = max((directory / "400" / "d").iterdir(), key=lambda p: p.stat().st_size)
    name, size = victim.relative_to(directory / "400").as_posix(), victim.stat().st_size
    victim.write_bytes(b"")
    state, step, _ = restore(directory)
    assert step == 350
    assert_same(state, make_state(350))
    expected = f"step 400 damaged: {name} (size 0 B, expected {manifest.format_bytes(size)})"
    assert f"{expected}; using step 350" in caplog.text
    assert (directory / "quarantine" / "400.0" / name).exists()
    assert not (directory / "400").exists()
    # Step 400 is saved again, is damaged again, and gets another name in the quarantine.
    fill(directory, [400])
    (directory / "400" / "_METADATA").unlink()
    assert restore(directory)[1] == 350
    assert sorted(p.name for p in (directory / "quarantine").iterdir()) == ["400.0", "400.1"]


def test_truncated_and_missing_files_are_detected(directory, caplog):
    for path in data_files(directory / "400"):
        if path.name == "MANIFEST.json":
            continue  # without its manifest the step does not exist
        original = path.read_bytes()
        for harm in (path.unlink, lambda p=path: p.write_bytes(p.read_bytes()[:-1])):
            if harm == path.unlink or original:
                harm()
                assert manifest.newest_intact(workdir.absolute(directory), repair=False) == 350
                path.write_bytes(original)
    manifest_file = directory / "400" / "MANIFEST.json"
    for text in ("", "{}", "[1, 2]", manifest_file.read_text()[:-9], "null", "[" * 100_000):
        manifest_file.write_text(text)
        assert manifest.newest_intact(workdir.absolute(directory), repair=False) == 350
    assert "step 400 damaged: MANIFEST.json is not a manifest" in caplog.text
    manifest_file.unlink()
    manifest_file.mkdir()
    assert manifest.newest_intact(workdir.absolute(directory), repair=False) == 350
    assert "step 400 damaged: MANIFEST.json is a folder" in caplog.text


def test_step_under_another_number_is_damaged(directory, caplog):
    (directory / "400").rename(directory / "500")
    assert restore(directory)[1] == 350
    assert "step 500 damaged: MANIFEST.json belongs to step 400" in caplog.text


def test_restore_is_refused_and_moves_nothing_if_all_steps_are_damaged(directory):
    for step in ("350", "400"):
        (directory / step / "_METADATA").write_bytes(b"x")
    for _ in range(2):  # the second restore must not find an empty folder
        message = refusal(directory)
        assert "step 400 damaged: _METADATA (size 1 B, expected" in message
        assert "step 350 damaged: _METADATA (size 1 B, expected" in message
    assert manifest.steps(directory) == [350, 400]


@pytest.mark.parametrize("repair", [True, False])
def test_lost_manifests_delete_nothing(directory, repair):
    for step in ("350", "400"):
        (directory / step / "MANIFEST.json").unlink()
    (directory / "450.tmp").mkdir()
    before = sorted(directory.rglob("*"))
    for _ in range(2):
        message = refusal(directory, repair=repair)
        assert "step 400 damaged: MANIFEST.json is missing" in message
        assert "step 350 damaged: MANIFEST.json is missing" in message
        assert "Nothing was changed" in message
        assert "start a new run in another --workdir" in message
    assert sorted(directory.rglob("*")) == before


def test_damaged_steps_are_not_moved_through_a_link(directory, tmp_path):
    (directory / "400" / "_METADATA").write_bytes(b"x")
    outside = tmp_path / "outside"
    outside.mkdir()
    (directory / "quarantine").symlink_to(outside)
    assert "quarantine: it is a link" in refusal(directory)
    assert not list(outside.iterdir())
    assert manifest.steps(directory) == [350, 400]


def test_step_without_manifest_is_kept_beside_an_intact_one(directory):
    (directory / "400" / "MANIFEST.json").unlink()
    files = len(data_files(directory / "400"))
    assert restore(directory)[1] == 350
    assert len(data_files(directory / "quarantine" / "400.0")) == files > 3


def test_checkpoints_must_be_a_folder(directory, tmp_path):
    moved = directory.rename(tmp_path / "moved")
    for target in (moved, tmp_path / "unmounted"):  # a link without target is not an empty folder
        directory.symlink_to(target)
        message = refusal(directory)
        assert f"refused {directory}: it must be a folder, not a link or a file" in message
        directory.unlink()
    directory.write_text("")
    assert "not a link or a file" in refusal(directory)
    assert manifest.steps(moved) == [350, 400]


def test_restore_without_repair_changes_nothing_on_disk(directory, caplog):
    (directory / "400" / "_METADATA").write_bytes(b"x")
    (directory / "450.orbax-checkpoint-tmp").mkdir()
    before = sorted(directory.rglob("*"))
    assert restore(directory, repair=False, config_hash="")[1] == 350
    assert "step 400 damaged" in caplog.text
    assert sorted(directory.rglob("*")) == before


def test_leftovers_of_unfinished_saves_are_logged_and_removed(directory, caplog):
    (directory / "400.orbax-checkpoint-tmp" / "d").mkdir(parents=True)
    (directory / "450.orbax-checkpoint-tmp-17").mkdir()
    shutil.copytree(directory / "400", directory / "450")
    (directory / "450" / "MANIFEST.json").rename(directory / "450" / ".MANIFEST.json.tmp")
    (directory / "notes.txt").write_text("the user's")
    assert restore(directory)[1] == 400
    assert sorted(p.name for p in directory.iterdir()) == ["350", "400", "notes.txt", "quarantine"]
    # The step without manifest may be whole, so it is kept.
    assert [p.name for p in (directory / "quarantine").iterdir()] == ["450.0"]
    assert "step 450 damaged: MANIFEST.json is missing; using step 400" in caplog.text
    for name in ("400.orbax-checkpoint-tmp", "450.orbax-checkpoint-tmp-17"):
        assert f"removing {directory / name}, left by an unfinished save" in caplog.text


def test_unreadable_disk_is_a_fault_and_moves_nothing(directory, monkeypatch):
    def unreadable(path):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(manifest, "_sha256", unreadable)
    assert "Input/output error" in refusal(directory, code=IO_ERROR)
    assert manifest.steps(directory) == [350, 400]


def test_newer_format_is_refused(directory):
    edit_manifest(directory / "400", format=3)
    message = refusal(directory)
    assert "written in checkpoint format 3, but this version of ssl_jax reads formats up to 1" in (
        message
    )
    assert manifest.steps(directory) == [350, 400]


def test_another_config_is_refused(directory):
    message = refusal(directory, config_hash="xyz")
    assert "a run with another config (config hash abc, this run has xyz)" in message


def test_another_tree_is_refused_with_the_names_of_its_leaves(directory):
    def changed(**params):
        state = make_state(0)
        changed = {k: v for k, v in (state.params | params).items() if v is not None}
        return state.replace(params=changed)

    assert "params/new: not in the checkpoint" in refusal(directory, changed(new=jnp.zeros(3)))
    assert "params/bias: only in the checkpoint" in refusal(directory, changed(bias=None))
    message = refusal(directory, changed(kernel=jnp.zeros((8, 4))))
    assert "params/kernel: float32[8,3] in the checkpoint, float32[8,4] in this run" in message
    message = refusal(directory, changed(half=jnp.zeros((8, 2))))
    assert "params/half: bfloat16[8,2] in the checkpoint, float32[8,2] in this run" in message
    assert "only in the checkpoint" in refusal(directory, make_state(0).replace(opt_state=()))
    many = {f"layer{i}": jnp.zeros(1) for i in range(15)}
    assert "and 5 more" in refusal(directory, changed(**many))


def test_links_and_special_files_are_refused(directory, tmp_path):
    victim = directory / "400" / "_METADATA"
    shutil.copy(victim, tmp_path / "outside")
    victim.unlink()
    victim.symlink_to(tmp_path / "outside")
    assert f"refused {victim}: a checkpoint must not contain links" in refusal(directory)
    victim.unlink()
    os.mkfifo(victim)
    assert f"refused {victim}: neither a regular file nor a folder" in refusal(directory)
    victim.unlink()
    shutil.copy(tmp_path / "outside", victim)
    (directory / "400" / "MANIFEST.json").rename(tmp_path / "manifest")
    (directory / "400" / "MANIFEST.json").symlink_to(tmp_path / "manifest")
    assert "MANIFEST.json: a checkpoint must not contain links" in refusal(directory)


def test_linked_folders_are_refused(directory, tmp_path):
    (directory / "400" / "d").rename(tmp_path / "d")
    (directory / "400" / "d").symlink_to(tmp_path / "d")
    assert "a checkpoint must not contain links" in refusal(directory)
    (directory / "400").rename(tmp_path / "400")
    (directory / "400").symlink_to(tmp_path / "400")
    assert f"refused {directory / '400'}: a checkpoint must not contain links" in (
        refusal(directory)
    )


@pytest.mark.parametrize("name", ["../350/_METADATA", "/etc/hostname", "d/../../350/_METADATA"])
def test_file_names_outside_the_step_are_refused(directory, name):
    files = json.loads((directory / "400" / "MANIFEST.json").read_text())["files"]
    edit_manifest(directory / "400", files=files | {name: {"size": 1, "sha256": "0"}})
    assert f"{name!r} is outside the checkpoint" in refusal(directory)
