"""Running cells: skipping, retrying and signals.

The training is a fake, which records each start and ends in a way that the cell's seed chooses.
"""

import os
import signal
import sys
import threading
import time

import pytest

from ssl_jax.errors import STOPPED_EARLY, Fault
from ssl_jax.study import runner, study_folder, terminal

FAKE = """
import json, os, pathlib, signal, sys, time
flags = dict(word.lstrip("-").split("=", 1) for word in sys.argv[1:])
path = pathlib.Path(flags["workdir"])
path.mkdir(parents=True, exist_ok=True)
seed, steps = flags["config.train.seed"], flags["config.train.steps"]
with open(path.parent.parent / "starts", "a") as file:
    print(seed, file=file)
if seed == "1" and not (path / "mended").exists():
    print("reading the data")
    print("ssl_jax: no such file", file=sys.stderr)
    sys.exit(65)
if seed == "2":
    print("ssl_jax: loss nan at step 3", file=sys.stderr)
    sys.exit(80)
if seed == "3" and not (path / "cut").exists():
    (path / "cut").touch()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
    (path / "ready").touch()
    time.sleep(60)
if seed == "4":
    os.kill(os.getpid(), signal.SIGKILL)
(path / "eval").mkdir(exist_ok=True)
(path / "checkpoints" / steps).mkdir(parents=True)
(path / "checkpoints" / steps / "MANIFEST.json").write_text("{}")
(path / "metadata.json").write_text('{"train_images": 1000, "devices": 2}')
done = {word: {"step": int(steps)} for word in ("knn", "linear", "label_free")}
(path / "eval" / ".done").write_text(json.dumps(done))
"""


@pytest.fixture
def make_study(tmp_path, config, monkeypatch):
    """Returns a function that makes the study of a grid, whose training is the fake."""
    script = tmp_path / "fake.py"
    script.write_text(FAKE)
    monkeypatch.setattr(runner, "TRAIN", (sys.executable, str(script)))

    def make(grid):
        path = tmp_path / "study"
        path.mkdir(exist_ok=True)
        words = ["--config=configs/simclr.py:digits"]
        study = study_folder.open_study(path, config, words, grid)
        study_folder.save(study)
        return study

    return make


def starts(study):
    return (study.path / "starts").read_text().split()


def run_all(study, lines=None):
    with runner.Runner(study) as study_runner:
        return study_runner.run_all(study.cells, (lines if lines is not None else []).append)


def test_failed_cells_are_retried_and_diverged_cells_are_not(make_study):
    study = make_study("steps=5;seed=0,1,2,4,5")
    lines = []
    failed = run_all(study, lines)
    assert starts(study) == ["0", "1", "2", "4", "5"]
    assert [cell.setting["seed"] for cell in failed] == [1, 4]
    states = [study_folder.status(study, cell) for cell in study.cells]
    assert states == ["done", "failed", "diverged", "failed", "done"]
    message = terminal.failures(study, failed)
    assert "2 of 5 cells failed" in message
    assert "steps=5-seed=1: exit 65" in message
    assert "reading the data\n    ssl_jax: no such file" in message
    assert "seed=4: exit 137" in message
    assert "3/5 steps=5-seed=2: diverged" in lines[2]

    (study.run_path(study.cells[1]) / "mended").touch()
    assert [cell.setting["seed"] for cell in run_all(study)] == [4]
    assert starts(study)[5:] == ["1", "4"]
    assert study.record(study.cells[1])["attempts"] == 2
    assert study_folder.status(study, study.cells[1]) == "done"


def test_a_cell_runs_in_a_folder_that_contains_only_study_json(make_study):
    study = make_study("steps=5;seed=0")
    (study.path / "cells").rmdir()
    with runner.Runner(study) as study_runner:
        assert study_runner.run(study.cells[0]) == 0
    assert study_folder.status(study, study.cells[0]) == "done"


def test_a_larger_grid_runs_only_its_new_cells(make_study):
    run_all(make_study("steps=5;seed=0"))
    larger = make_study("steps=5,6;seed=0,5")
    assert len(larger.cells) == 4
    assert run_all(larger) == []
    assert starts(larger) == ["0", "5", "0", "5"]
    assert run_all(larger) == []
    assert len(starts(larger)) == 4


def test_a_training_that_two_cells_share_runs_once(make_study):
    study = make_study("steps=5;seed=0;lr_rule=linear,sqrt")  # the rules agree
    assert run_all(study) == []
    assert starts(study) == ["0"]


def test_sigterm_reaches_the_training_and_the_next_call_resumes(make_study):
    study = make_study("steps=5;seed=0,3,5")
    ready = study.run_path(study.cells[1]) / "ready"

    def terminate():
        while not ready.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=terminate).start()
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Fault, match="SIGTERM: 2 of 3 cells are not done") as caught:
        run_all(study)
    assert caught.value.code == STOPPED_EARLY
    assert signal.getsignal(signal.SIGTERM) == before
    assert study.record(study.cells[1])["exit"] == 75
    assert study_folder.status(study, study.cells[1]) == "unfinished"
    assert run_all(study) == []
    assert starts(study) == ["0", "3", "3", "5"]


def test_show_prints_and_logs_the_output_of_the_training(make_study, capfdbinary):
    study = make_study("steps=5;seed=1")
    with runner.Runner(study) as study_runner:
        assert study_runner.run(study.cells[0], show=True) == 65
    assert b"reading the data" in capfdbinary.readouterr().out
    assert "reading the data" in study.log_path(study.cells[0]).read_text()


def test_environment_sets_the_devices_unless_a_launcher_does(make_study, monkeypatch):
    for name in runner.LAUNCHER_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6")
    (cell,) = make_study("devices=2").cells
    variables = runner.environment(cell)
    assert (variables["JAX_NUM_CPU_DEVICES"], variables["CUDA_VISIBLE_DEVICES"]) == ("2", "4,5")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert runner.environment(cell)["CUDA_VISIBLE_DEVICES"] == "4,5,6"


def test_another_number_of_devices_than_asked_for_is_reported(make_study):
    lines = []
    run_all(make_study("steps=5;seed=0;devices=2,4"), lines)
    assert ["instead" in line for line in lines] == [False, True]
    assert "on 2 devices instead of 4" in lines[1]


def test_training_command_sets_the_fields_of_the_cell(make_study):
    (cell,) = make_study("batch=64;epochs=4;lr_rule=linear").cells
    command = runner.training_command(make_study(""), cell)
    assert command[2:] == [
        "--config=configs/simclr.py:digits",
        "--config.train.batch_size=64",
        "--config.train.epochs=4",
        "--config.optim.lr_rule=linear",
        "--config.train.steps=0",
        "--config.optim.lr=0.01",
        f"--workdir={make_study('').run_path(cell)}",
    ]
