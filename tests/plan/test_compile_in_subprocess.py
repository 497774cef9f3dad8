"""When a compiled step is taken from its folder, and what its process is told."""

import importlib

import pytest
from programs import H100, V5E, program, topology
from ssl_jax.plan.counts import Counts

from ssl_jax.errors import IO_ERROR, Fault
from ssl_jax.plan import compile_in_subprocess
from ssl_jax.plan.dataset_size import Counts
from ssl_jax.plan.program import to_json
from ssl_jax.rundir import workdir

COUNTS = Counts(1297, 10, (8, 8))


def config(**changes):
    found = importlib.import_module("configs.simclr").get_config("digits")
    found.update_from_flattened_dict(changes)
    return found


def key(on=None, counts=COUNTS, **changes):
    return compile_in_subprocess.key(config(**changes), on or topology(), counts)


def test_only_what_changes_the_program_is_compiled_anew():
    same = [{"train.epochs": 3.0}, {"optim.lr": 0.1}, {"eval.knn_k": 5}, {"data.dir": "elsewhere"}]
    other = [{"train.batch_size": 64}, {"model.width": 1.0}, {"optim.name": "sgd"},
             {"optim.lr_in_momentum": False}]  # fmt: skip
    assert {key(**changes) for changes in same} == {key()}
    keys = [key(**changes) for changes in ({}, *other)]
    keys += [key(topology(shape=(8, 8))), key(topology(slices=2))]
    keys.append(key(counts=COUNTS._replace(classes=0)))
    assert len(set(keys)) == len(keys)


def test_what_was_compiled_is_not_compiled_again(tmp_path, monkeypatch):
    made = to_json(program())
    answer = {"program": made, "state_bytes": 7, "latency": None, "checked": None}
    calls = []
    monkeypatch.setattr(
        compile_in_subprocess, "in_child", lambda *_, **__: calls.append(1) or answer
    )
    for _ in range(2):
        found = compile_in_subprocess.get(config(), topology(), COUNTS, tmp_path)
        assert found.program == program()
        assert found.state_bytes == 7
    assert len(calls) == 1
    compile_in_subprocess.get(config(**{"train.batch_size": 64}), topology(), COUNTS, tmp_path)
    assert len(calls) == 2


def test_a_process_that_dies_is_told_with_its_last_words(tmp_path):
    workdir.write_json(tmp_path / "task.json", {"no": "task"})
    with pytest.raises(Fault, match="KeyError") as raised:
        compile_in_subprocess.in_child(tmp_path, topology(), check=False)
    assert raised.value.code == IO_ERROR


def test_the_environment_of_each_kind(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=8 --other=1")
    cpu = V5E._replace(kind="cpu")
    found = compile_in_subprocess.environment(topology(chip=cpu, shape=(2, 2)))
    assert (found["JAX_NUM_CPU_DEVICES"], found["XLA_FLAGS"]) == ("4", "--other=1")
    tpu = compile_in_subprocess.environment(topology())
    assert tpu["ALLOW_MULTIPLE_LIBTPU_LOAD"] == "1"
    assert "XLA_FLAGS" not in tpu
    assert (
        compile_in_subprocess.environment(topology(chip=H100), check=True)["JAX_PLATFORMS"]
        == "cuda,cpu"
    )
