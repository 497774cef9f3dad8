"""Cache of compiled steps, and the environment and failures of the compiling process."""

import ast
import importlib
import pathlib

import pytest
from programs import H100, V5E, make_program, make_topology

from ssl_jax.errors import IO_ERROR, Fault
from ssl_jax.plan import compile_in_subprocess
from ssl_jax.plan.dataset_size import DatasetSize
from ssl_jax.plan.program import program_to_json
from ssl_jax.rundir import workdir

SIZE = DatasetSize(1297, 10, (8, 8))
# Modules that the worker imports and that do not shape the step: the key has the config's values
# and the data's counts; the others report errors, choose threads, load plugins, and read and write.
NO_PART_OF_THE_STEP = ("config", "data", "errors.py", "field.py", "jobs", "plugins.py", "rundir")


def digits_config(**changes):
    config = importlib.import_module("configs.simclr").get_config("digits")
    config.update_from_flattened_dict(changes)
    return config


def key(topology=None, size=SIZE, **changes):
    topology = topology or make_topology()
    return compile_in_subprocess.cache_key(digits_config(**changes), topology, size)


def test_cache_key_depends_only_on_what_changes_the_program():
    same = [{"train.epochs": 3.0}, {"optim.lr": 0.1}, {"eval.knn_k": 5}, {"data.dir": "elsewhere"}]
    other = [{"train.batch_size": 64}, {"model.width": 1.0}, {"optim.name": "sgd"},
             {"optim.lr_in_momentum": False}, {"data.channels": 1}]  # fmt: skip
    assert {key(**changes) for changes in same} == {key()}
    keys = [key(**changes) for changes in ({}, *other)]
    keys += [key(make_topology(shape=(8, 8))), key(make_topology(slices=2))]
    keys.append(key(size=SIZE._replace(classes=0)))
    assert len(set(keys)) == len(keys)


def imported_files(path):
    """Yields the package's files that a file imports, also inside functions."""
    package = compile_in_subprocess.PACKAGE
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for parts in (pathlib.Path(*name.split(".")[1:]) for name in names if "ssl_jax." in name):
            module = package / parts
            choices = (module.with_suffix(".py"), module / "__init__.py",
                       module.parent.with_suffix(".py"), module.parent / "__init__.py")  # fmt: skip
            yield next(file for file in choices if file.exists())


def test_cache_key_covers_every_module_that_shapes_the_step():
    package = compile_in_subprocess.PACKAGE
    found, new = set(), {package / "plan" / "compile_worker.py"}
    while new:
        found |= new
        new = {file for path in new for file in imported_files(path)} - found
    assert package / "training" / "step.py" in found

    def unknown(path):
        known = (*compile_in_subprocess.SOURCES, *NO_PART_OF_THE_STEP)
        return not any(path.is_relative_to(package / name) for name in known)

    assert not [str(path) for path in found if unknown(path)]


def test_compiled_step_is_loaded_from_its_folder(tmp_path, monkeypatch):
    program = program_to_json(make_program())
    answer = {"program": program, "state_bytes": 7, "latency": None, "checked": None}
    calls = []
    monkeypatch.setattr(
        compile_in_subprocess, "run_worker", lambda *_, **__: calls.append(1) or answer
    )

    def compile_cached(**changes):
        config = digits_config(**changes)
        return compile_in_subprocess.compile_cached(config, make_topology(), SIZE, tmp_path)

    for _ in range(2):
        step = compile_cached()
        assert step.program == make_program()
        assert step.state_bytes == 7
    assert len(calls) == 1
    compile_cached(**{"train.batch_size": 64})
    assert len(calls) == 2


@pytest.mark.parametrize(
    "damage",
    [b"", b"[1]", b"\xff", b'{"key": "KEY"}', b'{"key": "KEY", "program": 3, "checked": [1]}'],
)
def test_a_damaged_cache_is_ignored(tmp_path, damage):
    (tmp_path / "program.json").write_bytes(damage.replace(b"KEY", b"k"))
    assert compile_in_subprocess.load(tmp_path, "k") is None


def test_fault_of_a_dead_worker_quotes_its_last_lines(tmp_path):
    workdir.write_json(tmp_path / "task.json", {"no": "task"})
    with pytest.raises(Fault, match="KeyError") as raised:
        compile_in_subprocess.run_worker(tmp_path, make_topology(), check=False)
    assert raised.value.code == IO_ERROR


def test_environment_fits_each_kind_of_chip(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=8 --other=1")
    cpu = make_topology(chip=V5E._replace(kind="cpu"), shape=(2, 2))
    variables = compile_in_subprocess.environment(cpu)
    assert (variables["JAX_NUM_CPU_DEVICES"], variables["XLA_FLAGS"]) == ("4", "--other=1")
    tpu = compile_in_subprocess.environment(make_topology())
    assert tpu["ALLOW_MULTIPLE_LIBTPU_LOAD"] == "1"
    assert "XLA_FLAGS" not in tpu
    gpu = compile_in_subprocess.environment(make_topology(chip=H100), check=True)
    assert gpu["JAX_PLATFORMS"] == "cuda,cpu"
