"""Checkpoints: exact round trips, restores on other devices, retention, partial reads."""

import hashlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from saved_steps import META, abstract, assert_same, data_files, fill, make_state, restore

from ssl_jax.errors import BAD_CHECKPOINT, Fault
from ssl_jax.rundir import manifest, workdir
from ssl_jax.rundir.checkpoint import Checkpoints


def test_restore_without_any_step_is_none(tmp_path):
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
    # Masked nodes and empty states have no leaves: their structure came from the abstract state.
    assert any(isinstance(s, optax.EmptyState | optax.MaskedState) for s in got.opt_state)


def test_manifest_describes_the_whole_step(directory):
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
def test_state_may_be_donated_after_save(tmp_path, devices):
    sharding = make_sharding(devices)
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


def test_state_and_meta_may_change_after_save(tmp_path):
    state, meta = {"x": np.arange(100_000, dtype=np.float32)}, {"images": 1}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, meta)
        state["x"][:] = -1
        meta["images"] = 2
        got, _, meta = checkpoints.restore_latest({"x": jax.ShapeDtypeStruct((100_000,), "f4")})
    np.testing.assert_array_equal(got["x"], np.arange(100_000))
    assert meta == {"images": 1}


def make_sharding(devices, spec=("d",)):
    mesh = Mesh(np.array(jax.devices()[:devices]), ("d",), axis_types=(AxisType.Auto,))
    return NamedSharding(mesh, PartitionSpec(*spec))


@pytest.mark.parametrize(("before", "after"), [(8, 1), (1, 8), (8, 2)])
@pytest.mark.parametrize("spec", [("d",), ()])
def test_restore_onto_another_number_of_devices(tmp_path, before, after, spec):
    want = jax.device_put({"x": jnp.arange(48.0).reshape(16, 3)}, make_sharding(before, spec))
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, want, {})
        like = abstract(want, make_sharding(after, spec))
        got, _, _ = checkpoints.restore_latest(like)
    assert got["x"].sharding == make_sharding(after, spec)
    assert len(got["x"].addressable_shards) == after
    assert_same(got, want)


@pytest.mark.parametrize("keep", [1, 2])
def test_newest_steps_are_kept(tmp_path, keep):
    with Checkpoints(tmp_path, keep=keep) as checkpoints:
        for step in (5, 10, 15):
            checkpoints.save(step, {"x": jnp.float32(step)}, {})
        checkpoints.wait()
        assert manifest.steps(tmp_path) == [5, 10, 15][-keep:]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(map(str, [5, 10, 15][-keep:]))
    with pytest.raises(ValueError, match="at least 1"):
        Checkpoints(tmp_path, keep=0)


def test_saving_a_step_twice_is_refused(directory):
    with pytest.raises(Fault, match="already exists"):
        fill(directory, [400])
    assert restore(directory)[1] == 400


def test_save_refuses_meta_that_is_not_json(tmp_path):
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(ValueError, match="JSON"):
        checkpoints.save(1, make_state(1), {"loss": float("nan")})


def test_read_latest_reads_selected_leaves(directory):
    names, before = ("half", "kernel"), sorted(directory.rglob("*"))
    with Checkpoints(directory, config_hash="abc") as checkpoints:
        leaves, step, meta = checkpoints.read_latest(
            lambda state: [state["params"][n] for n in names]
        )
    assert (step, meta) == (400, META)
    assert all(type(leaf) is np.ndarray for leaf in leaves)
    assert_same(leaves, [make_state(400).params[name] for name in names])
    assert sorted(directory.rglob("*")) == before


def test_reader_goes_on_to_the_step_that_replaced_the_one_it_reads(directory):
    names = []

    def select(state):
        if not names:
            fill(directory, [450], keep=1)  # a running training saves, and deletes 350 and 400
        names.append("kernel")
        return state["params"]["kernel"]

    with Checkpoints(directory, config_hash="abc") as checkpoints:
        kernel, step, _ = checkpoints.read_latest(select)
    assert step == 450
    assert_same(kernel, make_state(450).params["kernel"])
    assert len(names) == 2


def test_reader_goes_on_to_a_newer_step_while_it_verifies(directory, monkeypatch):
    sha256, calls = manifest._sha256, []

    def slow(path):
        calls.append(path)
        if len(calls) == 1:
            fill(directory, [450], keep=1)
        return sha256(path)

    monkeypatch.setattr(manifest, "_sha256", slow)
    assert manifest.newest_intact(workdir.absolute(directory), repair=False) == 450


def test_read_latest_refuses_another_config_and_returns_none_without_steps(directory, tmp_path):
    with (
        Checkpoints(directory, config_hash="xyz") as checkpoints,
        pytest.raises(Fault, match=r"another config \(config hash abc") as refused,
    ):
        checkpoints.read_latest(lambda state: state)
    assert refused.value.code == BAD_CHECKPOINT
    with Checkpoints(tmp_path / "none") as checkpoints:
        assert checkpoints.read_latest(lambda state: state) is None


def test_orbax_logs_nothing(tmp_path, caplog):
    caplog.set_level("INFO")
    fill(tmp_path, [1])
    restore(tmp_path)
    assert [r.getMessage() for r in caplog.records if "orbax" in r.pathname] == []


def test_format_bytes():
    sizes = {0: "0 B", 999: "999 B", 121_300: "121 kB", 212e6: "212 MB", 3.21e9: "3.2 GB"}
    assert {n: manifest.format_bytes(n) for n in sizes} == sizes
