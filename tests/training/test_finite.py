"""The check for finite numbers: what it finds and writes, and its cost on many devices."""

import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import parallel
from ssl_jax.errors import IO_ERROR, NUMERIC, Fault
from ssl_jax.rundir.workdir import Workdir, absolute
from ssl_jax.training.finite import FiniteGuard, each_finite
from ssl_jax.training.state import TrainState


class Saved:
    """Checkpoints of which step 7 is the last; the background save of a later step failed."""

    def wait(self):
        raise Fault("step 8 not saved", IO_ERROR)

    def latest_step(self):
        return 7


def make_state(**changed):
    state = TrainState(
        step=jnp.int32(9),
        params={"encoder": {"kernel": jnp.ones((2, 3)), "scale": jnp.ones(2, jnp.bfloat16)}},
        extra={"queue": jnp.zeros((4, 2))},
        opt_state=({"nu": jnp.zeros(3)}, jnp.int32(0)),
        probe={},
    )
    return state.replace(**changed)


@pytest.fixture
def guard(tmp_path):
    source = types.SimpleNamespace(describe=lambda index: f"file {index}")
    parts = types.SimpleNamespace(mesh=parallel.make_mesh(jax.devices()[:1]), source=source)
    return FiniteGuard(Workdir(absolute(tmp_path)), parts, Saved())


def stop(guard, call, *arguments):
    with pytest.raises(Fault) as stopped:
        call(*arguments)
    assert stopped.value.code == NUMERIC
    path = guard._run.path / "nonfinite.json"
    assert f"The last good checkpoint is step 7. Examples and arrays of the step: {path}." in str(
        stopped.value
    )
    return str(stopped.value), json.loads(path.read_text())


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("part", "value", "name"),
    [
        ("params", {"encoder": {"scale": [1, 0]}}, "params/encoder/scale"),
        ("extra", {"queue": [[1, 0]]}, "extra/queue"),
        ("opt_state", ({"nu": [0, 0, 1]},), "opt_state/0/nu"),
        ("probe", {"bias": [1]}, "probe/bias"),
    ],
)
def test_every_part_of_the_state_is_checked(guard, part, value, name, bad):
    def poisoned(x):
        return jnp.where(jnp.array(x) == 1, bad, 0).astype(jnp.bfloat16)

    value = jax.tree.map(poisoned, value, is_leaf=lambda x: isinstance(x, list))
    guard.add(9, np.arange(3), make_state(**{part: value}))
    message, report = stop(guard, guard.check_state, 9)
    assert f"the state after step 9 is not finite: {name}. " in message
    assert (report["nonfinite_arrays"], report["nonfinite_arrays_total"]) == ([name], 1)


def test_finite_state_passes_whatever_its_size_and_integers(guard):
    extra = {"empty": jnp.zeros((0, 3)), "large": jnp.float32(3e38), "count": jnp.int32(-1)}
    guard.add(9, np.arange(3), make_state(extra=extra))
    guard.check_state(9)
    guard.check_metrics(9, {"loss": 3e38, "grad_norm": 0.0, "other": float("nan")})
    assert not (guard._run.path / "nonfinite.json").exists()


@pytest.mark.parametrize(("loss", "norm"), [(np.nan, 1.0), (2.5, np.inf)])
def test_report_holds_the_examples_of_the_step_and_not_of_the_next(guard, loss, norm):
    for step in (7, 8, 9):
        bad = {"encoder": {"kernel": jnp.full((2, 3), jnp.nan), "scale": jnp.ones(2)}}
        guard.add(step, np.array([step, 10 * step]), make_state(params=bad))
    metrics = {"loss": loss, "grad_norm": norm, "lr": 0.5}
    message, report = stop(guard, guard.check_metrics, 8, metrics)
    assert f"loss {loss}, gradient norm {norm} at step 8. " in message
    assert report == {
        "step": 8,
        "state_after_step": 9,
        "examples": [{"index": 8, "name": "file 8"}, {"index": 80, "name": "file 80"}],
        "metrics": {k: v if np.isfinite(v) else str(v) for k, v in metrics.items()},
        "nonfinite_arrays": ["params/encoder/kernel"],
        "nonfinite_arrays_total": 1,
    }


def test_full_disk_does_not_hide_the_cause(guard, monkeypatch):
    def full(self, name, value):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Workdir, "write_json", full)
    guard.add(8, np.arange(2), make_state())
    with pytest.raises(Fault, match=r"loss nan.*not written, .*No space left") as stopped:
        guard.check_metrics(8, {"loss": np.nan, "grad_norm": 1.0})
    assert stopped.value.code == NUMERIC


def test_divided_arrays_are_checked_where_they_are():
    mesh = parallel.make_mesh(jax.devices(), fsdp=8)
    arrays = [jnp.zeros((256, 64)), jnp.zeros(64)]
    (shardings,) = parallel.shardings(("parameters",), (arrays,), mesh)
    assert not shardings[0].is_fully_replicated
    arrays = jax.device_put(arrays, shardings)
    check = jax.jit(each_finite, out_shardings=parallel.replicated(mesh))
    program = check.lower(arrays).compile().as_text()
    assert "all-gather" not in program
    assert "f32[256,64]" not in program
    assert "all-reduce" in program
    for place in (0, 255):
        poisoned = jax.device_put(arrays[0].at[place, 3].set(jnp.inf), shardings[0])
        np.testing.assert_array_equal(check([poisoned, arrays[1]]), [False, True])
