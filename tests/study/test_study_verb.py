"""The command `ssl_jax.study`, run in its own process."""

import csv
import json
import os
import pathlib
import subprocess
import sys

import pytest

from ssl_jax import plugins
from ssl_jax.errors import Fault
from ssl_jax.rundir import workdir
from ssl_jax.study import __main__ as verb
from ssl_jax.study import page, runner, study_folder

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIG = "--config=configs/simclr.py:digits"
SMALL = [
    *("--config.model.width=0.125", "--config.method.hidden_dim=16", "--config.augment.size=8"),
    *('--config.eval.protocols=("knn",)', "--config.eval.baselines=False"),
    *("--config.train.log_every=1", "--config.train.probe=False"),
]


def run_command(path, *words, **variables):
    command = [sys.executable, "-m", "ssl_jax.study", f"--workdir={path}", *words]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env=os.environ | variables
    )


def check_study(path, steps):
    """Checks that all cells are done and that study.csv agrees with the files of the cells."""
    with (path / "study.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == ["done"] * len(rows)
    assert [row["steps"] for row in rows] == steps
    for row in rows:
        run = json.loads((path / "runs" / row["cell"] / "config.json").read_text())
        assert run["train"]["batch_size"] == 64
        knn = json.loads((path / "runs" / row["cell"] / "eval" / "knn.json").read_text())
        accuracy = knn["results"]["simclr"]["accuracy"]
        assert float(row["knn_percent"]) == pytest.approx(100 * accuracy)
    assert "<html" in (path / "study.html").read_text()


def test_trains_two_cells_and_writes_their_page(tmp_path, config, monkeypatch):
    """Does what the command does, but with a tiny encoder."""
    script = str(pathlib.Path(__file__).with_name("tiny_train.py"))
    monkeypatch.setattr(runner, "TRAIN", (sys.executable, script))
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=0")
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    config.eval.protocols, config.eval.baselines = ("knn",), False
    config.train.probe = False
    path = tmp_path / "study"
    path.mkdir()
    words = [CONFIG, *(word for word in SMALL if "width" not in word)]
    study = study_folder.open_study(path, config, words, "batch=64;steps=2,3")
    study_folder.save(study)
    with runner.Runner(study) as study_runner:
        assert study_runner.run_all(study.cells) == []
    page.write(study)
    check_study(path, ["2", "3"])


@pytest.mark.slow
def test_command_trains_and_writes_the_page(tmp_path):
    path = tmp_path / "study"
    process = run_command(path, CONFIG, *SMALL, "--grid=batch=64;steps=2,3")
    assert process.returncode == 0, process.stderr
    assert "2 cells, 2 to run." in process.stdout
    check_study(path, ["2", "3"])


def test_a_study_continues_from_its_folder_without_other_flags(study_of):
    path = study_of("batch=64;steps=2,3").path
    again = run_command(path)
    assert again.returncode == 0, again.stderr
    assert "2 cells, 0 to run." in again.stdout
    assert (path / "study.html").exists()
    one = run_command(path, "--cell=slurm", SLURM_ARRAY_TASK_ID="1")
    assert (one.returncode, one.stdout) == (0, "batch=64-steps=3: done\n")
    beyond = run_command(path, "--cell=2")
    assert (beyond.returncode, "from 0 to 1" in beyond.stderr) == (64, True)
    other = run_command(path, CONFIG, "--config.optim.lr=0.1", "--gather")
    assert other.returncode == 78
    assert "optim.lr: was 0.005, is now 0.1" in other.stderr


def test_a_study_folder_runs_no_code_that_its_user_did_not_name(tmp_path, study_of):
    """Config files and modules that only study.json names are refused before they are imported."""
    path = study_of("batch=64;steps=2,3").path
    (path / "evil.py").write_text("raise SystemExit('code of the folder ran')")
    saved = json.loads((path / "study.json").read_text())
    module = [CONFIG, "--config.data.source=evil:open_it"]
    method = [CONFIG, "--config.method.name=evil:make"]
    for words, code, message in (
        ([f"--config={path}/evil.py"], 64, "was started with the config file"),
        (module, 78, "SSL_JAX_MODULES=evil"),
        (method, 78, "SSL_JAX_MODULES=evil"),
        (["--flagfile=flags"], 65, "does not set the config"),
        ("--config=x", 65, "is not a list of flags"),
    ):
        (path / "study.json").write_text(json.dumps(saved | {"arguments": words}))
        done = run_command(path, "--print", PYTHONPATH=str(path))
        assert (done.returncode, "code of the folder ran" in done.stderr) == (code, False), words
        assert message in done.stderr


def test_print_shows_the_cells_and_runs_nothing(tmp_path):
    path = tmp_path / "study"
    grid = "--grid=batch=64,256;epochs=4;lr_rule=linear,sqrt"
    process = run_command(path, CONFIG, grid, "--print")
    assert process.returncode == 0, process.stderr
    lines = [line.split() for line in process.stdout.splitlines()]
    # 4 epochs of 1,297 images are 82 steps of 64 images, or 21 steps of 256.
    assert lines[1] == ["0", "batch=64-epochs=4-lr_rule=linear", "0.0025", "82", "5,248", "missing"]
    assert lines[4][2:5] == ["0.007071", "21", "5,376"]
    assert "agree at the config's batch size, 128: there the rate is 0.005" in process.stdout
    assert not path.exists()


def test_problems_are_reported_before_heavy_imports(tmp_path):
    words = ["study", CONFIG, f"--workdir={tmp_path / 'study'}"]
    words.append("--grid=batchs=64;seed=x;lr_rule=linera")
    code = f"""
import runpy, sys
class RefuseHeavyImports:
    def find_spec(name, path, target=None):
        assert name not in ("jax", "tensorflow", "matplotlib"), name
sys.meta_path.insert(0, RefuseHeavyImports)
sys.argv = {words}
runpy.run_module("ssl_jax.study", run_name="__main__")
"""
    command = [sys.executable, "-c", code]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 78, process.stderr
    for words in ("did you mean 'batch'?", "seed=x: not a valid int", "did you mean 'linear'?"):
        assert words in process.stderr
    assert not (tmp_path / "study").exists()


def test_a_study_in_use_is_refused(tmp_path):
    with workdir.open_workdir(tmp_path):
        process = run_command(tmp_path, CONFIG, "--grid=batch=64")
    assert process.returncode == 73
    assert "in use by pid" in process.stderr


@pytest.mark.parametrize("words", [["--print", "--gather"], ["--cell=0", "--jobs=slurm"]])
def test_modes_cannot_be_combined(tmp_path, words):
    process = run_command(tmp_path, CONFIG, "--grid=batch=64", *words)
    assert process.returncode == 64
    assert "only one at a time" in process.stderr


def test_batches_larger_than_the_data_are_refused_before_any_cell_starts(tmp_path):
    process = run_command(tmp_path / "study", CONFIG, "--grid=batch=64,2048")
    assert process.returncode == 65
    assert "batch=2048: 1297 examples < batch 2048" in process.stderr
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize("field", ["method.name", "model.name"])
def test_modules_in_the_grid_of_a_foreign_study_are_not_allowed(
    tmp_path, config, monkeypatch, field
):
    monkeypatch.setenv(plugins.VARIABLE, "")
    foreign, own = f"{field}=evil:make", f"{field}=mine:make"
    study = study_folder.open_study(tmp_path, config, [CONFIG], foreign)
    with pytest.raises(Fault, match="the module 'evil', which is not part of ssl_jax"):
        verb.check_modules(study, "")
    study = study_folder.open_study(tmp_path, config, [CONFIG], own)
    verb.check_modules(study, own)  # the user typed it
    study_folder.save(study)
    study = study_folder.open_study(tmp_path, config, [CONFIG], foreign)
    with pytest.raises(Fault, match="the module 'evil'"):
        verb.check_modules(study, own)
