"""Checkpoints: exact round trips, no damage unnoticed, no step lost, no bad step used."""

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ssl_jax.errors import BAD_CHECKPOINT, IO_ERROR, Fault
from ssl_jax.optim import optimizers
from ssl_jax.rundir import manifest, workdir
from ssl_jax.rundir.checkpoint import Checkpoints

META = {"images": 640, "note": "ünï", "spike": [0.1, None]}


class State(flax.struct.PyTreeNode):
    step: jax.Array
    params: dict
    opt_state: tuple


def make_state(value, *, name="lars"):
    params = {
        "kernel": jnp.arange(24.0).reshape(8, 3) / 7 + value,
        "half": jnp.arange(16, dtype=jnp.bfloat16).reshape(8, 2) / 3 + value,
        "bias": jnp.full((8,), value, jnp.float32),
        "batch_stats": {},
        "odd/name.with [marks]": jnp.float32(np.nan),
    }
    tx, _ = optimizers.make(
        name, lr=0.1, lr_rule="constant", batch_size=8, warmup_steps=2, total_steps=9,
        weight_decay=0.1,
    )  # fmt: skip
    return State(jnp.int32(value), params, tx.init(params))


def abstract(state, sharding=None):
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding or x.sharding), state
    )


def assert_same(got, want):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def fill(directory, steps, **options):
    """Saves `make_state(step)` at each of the steps."""
    options = {"config_hash": "abc", "keep": 3} | options
    with Checkpoints(directory, **options) as checkpoints:
        for step in steps:
            checkpoints.save(step, make_state(step), META)


def restore(directory, like=None, *, config_hash="abc", **options):
    with Checkpoints(directory, config_hash=config_hash) as checkpoints:
        return checkpoints.restore_latest(abstract(like or make_state(0)), **options)


def refusal(*args, code=BAD_CHECKPOINT, **options):
    with pytest.raises(Fault) as caught:
        restore(*args, **options)
    assert caught.value.code == code
    return str(caught.value)


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory):
    """A directory with steps 350 and 400, to be copied."""
    directory = tmp_path_factory.mktemp("two") / "checkpoints"
    fill(directory, [350, 400])
    return directory


@pytest.fixture
def directory(two_steps, tmp_path):
    return shutil.copytree(two_steps, tmp_path / "checkpoints")


def data_files(folder):
    return sorted(p for p in folder.rglob("*") if p.is_file())


def edit_manifest(folder, **changes):
    """Changes a manifest and seals it anew, as another program would have written it."""
    content = json.loads((folder / "MANIFEST.json").read_text()) | changes
    del content["seal"]
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    content["seal"] = hashlib.sha256(text.encode()).hexdigest()
    (folder / "MANIFEST.json").write_text(json.dumps(content))


def test_nothing_saved_is_none(tmp_path):
    assert restore(tmp_path / "checkpoints") is None
    assert list(tmp_path.iterdir()) == []
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.latest_step() is None


@pytest.mark.parametrize("name", ["lars", "adamw"])
def test_round_trip_is_exact(tmp_path, name):
    want = make_state(7, name=name)
    with Checkpoints(tmp_path, config_hash="abc") as checkpoints:
        checkpoints.save(7, want, META)
        got, step, meta = checkpoints.restore_latest(abstract(want))
        assert checkpoints.latest_step() == 7
    assert (step, meta) == (7, META)
    assert_same(got, want)
    # Masked nodes and empty states have no leaves: their structure came from the asking tree.
    assert any(isinstance(s, optax.EmptyState | optax.MaskedState) for s in got.opt_state)


def test_manifest_tells_the_whole_step(directory):
    content = json.loads((directory / "400" / "MANIFEST.json").read_text())
    assert (content["format"], content["step"], content["config_hash"]) == (1, 400, "abc")
    assert content["leaves"]["params/half"] == ["bfloat16", [8, 2]]
    assert content["leaves"]["step"] == ["int32", []]
    assert content["versions"]["jax"] == jax.__version__
    present = data_files(directory / "400")
    assert len(content["files"]) == len(present) - 1
    for name, want in content["files"].items():
        data = (directory / "400" / name).read_bytes()
        assert want == {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def test_orbax_alone_reads_a_step(directory):
    import orbax.checkpoint as ocp

    params = ocp.StandardCheckpointer().restore(str(directory / "400"))["params"]
    np.testing.assert_array_equal(params["kernel"], make_state(400).params["kernel"])


@pytest.mark.parametrize("devices", [1, 8])
def test_donation_after_save_is_safe(tmp_path, devices):
    sharding = _sharding(devices)
    state = {"x": jax.device_put(jnp.arange(2_000_000.0), sharding)}
    want = np.array(state["x"])
    step = jax.jit(lambda s: {"x": -s["x"] - 1}, donate_argnums=0)
    jax.block_until_ready(step({"x": jax.device_put(want, sharding)}))  # compile
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, {})
        for _ in range(3):
            state = step(state)
        jax.block_until_ready(state)
        got, _, _ = checkpoints.restore_latest({"x": jax.ShapeDtypeStruct((2_000_000,), "float32")})
    np.testing.assert_array_equal(got["x"], want)


def test_mutation_after_save_is_safe(tmp_path):
    state, meta = {"x": np.arange(100_000, dtype=np.float32)}, {"images": 1}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, meta)
        state["x"][:] = -1
        meta["images"] = 2
        got, _, meta = checkpoints.restore_latest({"x": jax.ShapeDtypeStruct((100_000,), "f4")})
    np.testing.assert_array_equal(got["x"], np.arange(100_000))
    assert meta == {"images": 1}


def _sharding(devices, spec=("d",)):
    mesh = Mesh(np.array(jax.devices()[:devices]), ("d",), axis_types=(AxisType.Auto,))
    return NamedSharding(mesh, PartitionSpec(*spec))


@pytest.mark.parametrize(("before", "after"), [(8, 1), (1, 8), (8, 2)])
@pytest.mark.parametrize("spec", [("d",), ()])
def test_restores_onto_other_devices(tmp_path, before, after, spec):
    want = jax.device_put({"x": jnp.arange(48.0).reshape(16, 3)}, _sharding(before, spec))
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, want, {})
        like = abstract(want, _sharding(after, spec))
        got, _, _ = checkpoints.restore_latest(like)
    assert got["x"].sharding == _sharding(after, spec)
    assert len(got["x"].addressable_shards) == after
    assert_same(got, want)


@pytest.mark.parametrize("keep", [1, 2])
def test_retention(tmp_path, keep):
    with Checkpoints(tmp_path, keep=keep) as checkpoints:
        for step in (5, 10, 15):
            checkpoints.save(step, {"x": jnp.float32(step)}, {})
        checkpoints.wait()
        assert manifest.steps(tmp_path) == [5, 10, 15][-keep:]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(map(str, [5, 10, 15][-keep:]))
    with pytest.raises(ValueError, match="at least 1"):
        Checkpoints(tmp_path, keep=0)


def test_damaged_steps_do_not_count_as_kept(directory):
    shutil.rmtree(directory / "400" / "d")
    fill(directory, [450], keep=2)
    assert manifest.steps(directory) == [350, 400, 450]


def test_old_steps_go_only_after_the_new_manifest(tmp_path, monkeypatch):
    fill(tmp_path, [1], keep=1)

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(manifest, "write", full)
    with pytest.raises(Fault):
        fill(tmp_path, [2], keep=1)
    assert manifest.steps(tmp_path) == [1]


def test_a_half_deleted_step_does_not_exist(tmp_path, monkeypatch, caplog):
    """Dying inside the deletion leaves a folder without manifest, which the next run removes."""
    fill(tmp_path, [1, 2], keep=2)
    monkeypatch.setattr(type(workdir.absolute(tmp_path)), "rmtree", lambda self: None)
    manifest.delete_old(workdir.absolute(tmp_path), keep=1)
    monkeypatch.undo()
    assert (tmp_path / "1").is_dir()
    assert restore(tmp_path)[1] == 2
    assert f"removing {tmp_path / '1'}, left by an unfinished save" in caplog.text
    assert not (tmp_path / "1").exists()


def test_flipped_bits_never_pass(directory, tmp_path, caplog):
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


def test_a_step_is_saved_once(directory):
    with pytest.raises(Fault, match="already exists"):
        fill(directory, [400])
    assert restore(directory)[1] == 400


def test_meta_is_json_or_the_caller_hears_at_once(tmp_path):
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(ValueError, match="JSON"):
        checkpoints.save(1, make_state(1), {"loss": float("nan")})


def test_the_older_step_is_used_and_the_damaged_one_kept(directory, caplog):
    victim = max((directory / "400" / "d").iterdir(), key=lambda p: p.stat().st_size)
    name, size = victim.relative_to(directory / "400").as_posix(), victim.stat().st_size
    victim.write_bytes(b"")
    state, step, _ = restore(directory)
    assert step == 350
    assert_same(state, make_state(350))
    expected = f"step 400 damaged: {name} (size 0 B, expected {manifest.readable(size)})"
    assert f"{expected}; using step 350" in caplog.text
    assert (directory / "quarantine" / "400.0" / name).exists()
    assert not (directory / "400").exists()
    # Step 400 comes again, is damaged again, and stands beside the first.
    fill(directory, [400])
    (directory / "400" / "_METADATA").unlink()
    assert restore(directory)[1] == 350
    assert sorted(p.name for p in (directory / "quarantine").iterdir()) == ["400.0", "400.1"]


def test_any_file_cut_or_gone_is_noticed(directory, caplog):
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
    for text in ("", "{}", "[1, 2]", manifest_file.read_text()[:-9], "null"):
        manifest_file.write_text(text)
        assert manifest.newest_intact(workdir.absolute(directory), repair=False) == 350
    assert "step 400 damaged: MANIFEST.json is not a manifest" in caplog.text


def test_a_step_under_another_number_is_damaged(directory, caplog):
    (directory / "400").rename(directory / "500")
    assert restore(directory)[1] == 350
    assert "step 500 damaged: MANIFEST.json is of step 400" in caplog.text


def test_all_damaged_is_refused_and_nothing_is_moved(directory):
    for step in ("350", "400"):
        (directory / step / "_METADATA").write_bytes(b"x")
    for _ in range(2):  # the second try must not find an empty folder
        message = refusal(directory)
        assert "step 400 damaged: _METADATA (size 1 B, expected" in message
        assert "step 350 damaged: _METADATA (size 1 B, expected" in message
    assert manifest.steps(directory) == [350, 400]


def test_a_part_is_read_by_name(directory):
    """Of a run whose whole tree the reader does not know."""
    names, before = ("half", "kernel"), sorted(directory.rglob("*"))
    with Checkpoints(directory, config_hash="abc") as checkpoints:
        found, step, meta = checkpoints.read_latest(
            lambda state: [state["params"][n] for n in names]
        )
    assert (step, meta) == (400, META)
    assert all(type(leaf) is np.ndarray for leaf in found)
    assert_same(found, [make_state(400).params[name] for name in names])
    assert sorted(directory.rglob("*")) == before


def test_a_part_of_another_configuration_or_of_nothing(directory, tmp_path):
    with (
        Checkpoints(directory, config_hash="xyz") as checkpoints,
        pytest.raises(Fault, match=r"another configuration \(abc") as refused,
    ):
        checkpoints.read_latest(lambda state: state)
    assert refused.value.code == BAD_CHECKPOINT
    with Checkpoints(tmp_path / "none") as checkpoints:
        assert checkpoints.read_latest(lambda state: state) is None


def test_readers_change_nothing(directory, caplog):
    (directory / "400" / "_METADATA").write_bytes(b"x")
    (directory / "450.orbax-checkpoint-tmp").mkdir()
    before = sorted(directory.rglob("*"))
    assert restore(directory, repair=False, config_hash="")[1] == 350
    assert "step 400 damaged" in caplog.text
    assert sorted(directory.rglob("*")) == before


def test_leftovers_are_named_and_removed(directory, caplog):
    (directory / "400.orbax-checkpoint-tmp" / "d").mkdir(parents=True)
    (directory / "450.orbax-checkpoint-tmp-17").mkdir()
    shutil.copytree(directory / "400", directory / "450")
    (directory / "450" / "MANIFEST.json").rename(directory / "450" / ".MANIFEST.json.tmp")
    (directory / "notes.txt").write_text("the user's")
    assert restore(directory)[1] == 400
    assert sorted(p.name for p in directory.iterdir()) == ["350", "400", "notes.txt"]
    for name in ("400.orbax-checkpoint-tmp", "450.orbax-checkpoint-tmp-17", "450"):
        assert f"removing {directory / name}, left by an unfinished save" in caplog.text


def test_an_unreadable_disk_moves_nothing(directory, monkeypatch):
    def unreadable(path):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(manifest, "_digest", unreadable)
    assert "Input/output error" in refusal(directory, code=IO_ERROR)
    assert manifest.steps(directory) == [350, 400]


def test_a_newer_format_is_refused(directory):
    edit_manifest(directory / "400", format=3)
    message = refusal(directory)
    assert "written by format 3, this build reads <= 1" in message
    assert manifest.steps(directory) == [350, 400]


def test_another_configuration_is_refused(directory):
    message = refusal(directory, config_hash="xyz")
    assert "is of another configuration (abc, this run's is xyz)" in message


def test_another_tree_is_refused_by_name(directory):
    def but(**params):
        state = make_state(0)
        kept = {k: v for k, v in (state.params | params).items() if v is not None}
        return state.replace(params=kept)

    assert "params/new: not in the checkpoint" in refusal(directory, but(new=jnp.zeros(3)))
    assert "params/bias: only in the checkpoint" in refusal(directory, but(bias=None))
    message = refusal(directory, but(kernel=jnp.zeros((8, 4))))
    assert "params/kernel: float32[8,3] in the checkpoint, float32[8,4] in this run" in message
    message = refusal(directory, but(half=jnp.zeros((8, 2))))
    assert "params/half: bfloat16[8,2] in the checkpoint, float32[8,2] in this run" in message
    assert "only in the checkpoint" in refusal(directory, make_state(0).replace(opt_state=()))
    many = {f"layer{i}": jnp.zeros(1) for i in range(15)}
    assert "and 5 more" in refusal(directory, but(**many))


def test_links_and_special_files_are_refused(directory, tmp_path):
    victim = directory / "400" / "_METADATA"
    shutil.copy(victim, tmp_path / "outside")
    victim.unlink()
    victim.symlink_to(tmp_path / "outside")
    assert f"refused {victim}: a link leaves the checkpoint" in refusal(directory)
    victim.unlink()
    os.mkfifo(victim)
    assert f"refused {victim}: neither a file nor a folder" in refusal(directory)
    victim.unlink()
    shutil.copy(tmp_path / "outside", victim)
    (directory / "400" / "MANIFEST.json").rename(tmp_path / "manifest")
    (directory / "400" / "MANIFEST.json").symlink_to(tmp_path / "manifest")
    assert "MANIFEST.json: a link leaves the checkpoint" in refusal(directory)


def test_a_linked_folder_is_refused(directory, tmp_path):
    (directory / "400" / "d").rename(tmp_path / "d")
    (directory / "400" / "d").symlink_to(tmp_path / "d")
    assert "a link leaves the checkpoint" in refusal(directory)
    (directory / "400").rename(tmp_path / "400")
    (directory / "400").symlink_to(tmp_path / "400")
    assert f"refused {directory / '400'}: a link" in refusal(directory)


@pytest.mark.parametrize("name", ["../350/_METADATA", "/etc/hostname", "d/../../350/_METADATA"])
def test_names_that_leave_the_step_are_refused(directory, name):
    files = json.loads((directory / "400" / "MANIFEST.json").read_text())["files"]
    edit_manifest(directory / "400", files=files | {name: {"size": 1, "sha256": "0"}})
    assert f"{name!r} leaves the checkpoint" in refusal(directory)


def test_a_background_error_reaches_the_loop(tmp_path, monkeypatch):
    fill(tmp_path, [1])

    def full(*args):
        raise OSError(28, "No space left on device")

    with Checkpoints(tmp_path) as checkpoints:
        monkeypatch.setattr(manifest, "write", full)
        checkpoints.save(2, make_state(2), META)
        checkpoints._pending.exception()  # until the thread has ended
        with pytest.raises(Fault) as caught:
            checkpoints.check()
        assert caught.value.code == IO_ERROR
        message = str(caught.value)
        assert f"step 2 not saved in {tmp_path}" in message
        assert "No space left on device" in message
        assert " free); the last saved step is 1" in message
        # Told once; the failed save is gone, so that the next has the room.
        checkpoints.check()
        assert [p.name for p in tmp_path.iterdir()] == ["1"]
        monkeypatch.undo()
        checkpoints.save(3, make_state(3), META)
    assert manifest.steps(tmp_path) == [1, 3]


@pytest.mark.parametrize("raiser", ["close", "save"])
def test_an_error_is_raised_by_what_comes_next(tmp_path, monkeypatch, raiser):
    def no_space(*args):
        raise ValueError("RESOURCE_EXHAUSTED: Error writing\n a wall of text")

    checkpoints = Checkpoints(tmp_path)
    monkeypatch.setattr(manifest, "write", no_space)
    checkpoints.save(1, make_state(1), META)
    with pytest.raises(Fault, match=r"not saved in .*: RESOURCE_EXHAUSTED: Error writing \(needs"):
        checkpoints.save(2, make_state(2), META) if raiser == "save" else checkpoints.close()
    monkeypatch.undo()
    checkpoints.close()


def test_a_full_disk_is_seen_before_writing(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 9))
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(Fault) as caught:
        checkpoints.save(1, {"x": np.zeros(50_000, np.float32)}, {})
    assert "disk full (needs 240 kB, 9 B free); no step was saved before" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_real_failure_to_write(tmp_path):
    """By the kernel's limit on the size of a file, in a process of its own."""
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
    result = _python(script, tmp_path)
    assert result.returncode == 0, result.stderr
    assert f"step 1 not saved in {tmp_path}" in result.stdout
    assert "File too large" in result.stdout
    assert result.stdout.endswith(" 74\n")
    assert result.stderr == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("point", ["save.during_data", "save.before_manifest"])
def test_killed_while_saving(tmp_path, point, caplog):
    fill(tmp_path, [1])
    script = """
        import os, sys, time
        import numpy as np
        from ssl_jax.rundir import checkpoint
        crash = checkpoint._crash_at
        def crash_with_data_on_disk(point):
            # Orbax writes on a thread of its own: die only once it has begun.
            while len(os.listdir(sys.argv[1])) < 2:
                time.sleep(0.001)
            crash(point)
        checkpoint._crash_at = crash_with_data_on_disk
        with checkpoint.Checkpoints(sys.argv[1]) as checkpoints:
            checkpoints.save(2, {"x": np.zeros(1000, np.float32)}, {})
        print("survived")
    """
    result = _python(script, tmp_path, SSLJAX_CRASH_AT=point)
    assert (result.returncode, result.stdout) == (137, "")
    left = {p.name for p in tmp_path.iterdir()} - {"1"}
    assert left
    state, step, _ = restore(tmp_path)
    assert step == 1
    assert_same(state, make_state(1))
    assert [p.name for p in tmp_path.iterdir()] == ["1"]
    assert all(str(tmp_path / name) in caplog.text for name in left)


def _python(script, *args, **env):
    lines = script.split("\n")
    indent = len(lines[1]) - len(lines[1].lstrip())
    return subprocess.run(
        [sys.executable, "-c", "\n".join(line[indent:] for line in lines), *map(str, args)],
        env=os.environ | env,
        capture_output=True,
        text=True,
        check=False,
    )


def test_orbax_is_quiet(tmp_path, caplog):
    caplog.set_level("INFO")
    fill(tmp_path, [1])
    restore(tmp_path)
    assert [r.getMessage() for r in caplog.records if "orbax" in r.pathname] == []


def test_sizes_are_readable():
    sizes = {0: "0 B", 999: "999 B", 121_300: "121 kB", 212e6: "212 MB", 3.21e9: "3.2 GB"}
    assert {n: manifest.readable(n) for n in sizes} == sizes
