"""Running cells: what is skipped, what is tried again, what a signal does. The training is a fake,
which counts its starts and ends as the cell's seed says."""

import os
import signal
import sys
import threading
import time

import pytest

from ssl_jax.errors import STOPPED_EARLY, Fault
from ssl_jax.study import folder, listing, run

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
def study(tmp_path, config, monkeypatch):
    """Makes the study of a grid, whose training is the fake."""
    script = tmp_path / "fake.py"
    script.write_text(FAKE)
    monkeypatch.setattr(run, "TRAIN", (sys.executable, str(script)))

    def make(text):
        path = tmp_path / "study"
        path.mkdir(exist_ok=True)
        found = folder.open_study(path, config, ["--config=configs/simclr.py:digits"], text)
        folder.save(found)
        return found

    return make


def starts(study):
    return (study.path / "starts").read_text().split()


def go(study, lines=None):
    with run.Runner(study) as runner:
        return runner.all(study.cells, (lines if lines is not None else []).append)


def test_a_failing_cell_stops_none_and_is_tried_again_but_a_diverged_one_is_a_result(study):
    found = study("steps=5;seed=0,1,2,4,5")
    lines = []
    failed = go(found, lines)
    assert starts(found) == ["0", "1", "2", "4", "5"]
    assert [cell.setting["seed"] for cell in failed] == [1, 4]
    states = [folder.status(found, cell) for cell in found.cells]
    assert states == ["done", "failed", "diverged", "failed", "done"]
    told = listing.failures(found, failed)
    assert "2 of 5 cells failed" in told
    assert "steps=5-seed=1: exit 65" in told
    assert "reading the data\n    ssl_jax: no such file" in told
    assert "seed=4: exit 137" in told
    assert "3/5 steps=5-seed=2: diverged" in lines[2]

    (found.run(found.cells[1]) / "mended").touch()
    assert [cell.setting["seed"] for cell in go(found)] == [4]
    assert starts(found)[5:] == ["1", "4"]
    assert found.record(found.cells[1])["attempts"] == 2
    assert folder.status(found, found.cells[1]) == "done"


def test_a_cell_runs_where_nothing_but_the_study_json_was_brought(study):
    found = study("steps=5;seed=0")
    (found.path / "cells").rmdir()
    with run.Runner(found) as runner:
        assert runner.one(found.cells[0]) == 0
    assert folder.status(found, found.cells[0]) == "done"


def test_a_larger_grid_runs_only_what_is_new(study):
    go(study("steps=5;seed=0"))
    larger = study("steps=5,6;seed=0,5")
    assert len(larger.cells) == 4
    assert go(larger) == []
    assert starts(larger) == ["0", "5", "0", "5"]
    assert go(larger) == []
    assert len(starts(larger)) == 4


def test_a_training_that_two_cells_share_is_run_once(study):
    found = study("steps=5;seed=0;lr_rule=linear,sqrt")  # at the config's own batch
    assert go(found) == []
    assert starts(found) == ["0"]


def test_sigterm_is_passed_on_and_the_same_command_goes_on(study):
    found = study("steps=5;seed=0,3,5")
    ready = found.run(found.cells[1]) / "ready"

    def terminate():
        while not ready.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=terminate).start()
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Fault, match="SIGTERM: 2 of 3 cells are not done") as caught:
        go(found)
    assert caught.value.code == STOPPED_EARLY
    assert signal.getsignal(signal.SIGTERM) == before
    assert found.record(found.cells[1])["exit"] == 75
    assert folder.status(found, found.cells[1]) == "unfinished"
    assert go(found) == []
    assert starts(found) == ["0", "3", "3", "5"]


def test_a_job_prints_what_its_training_prints_and_keeps_it(study, capfdbinary):
    found = study("steps=5;seed=1")
    with run.Runner(found) as runner:
        assert runner.one(found.cells[0], show=True) == 65
    assert b"reading the data" in capfdbinary.readouterr().out
    assert "reading the data" in found.log(found.cells[0]).read_text()


def test_a_cells_devices_are_given_here_and_left_to_a_scheduler_there(study, monkeypatch):
    for name in run.PLACED:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6")
    (cell,) = study("devices=2").cells
    found = run.environment(cell)
    assert (found["JAX_NUM_CPU_DEVICES"], found["CUDA_VISIBLE_DEVICES"]) == ("2", "4,5")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert run.environment(cell)["CUDA_VISIBLE_DEVICES"] == "4,5,6"


def test_other_devices_than_asked_for_are_told(study):
    lines = []
    go(study("steps=5;seed=0;devices=2,4"), lines)
    assert ["instead" in line for line in lines] == [False, True]
    assert "on 2 devices instead of 4" in lines[1]


def test_the_command_is_a_plain_training(study):
    (cell,) = study("batch=64;epochs=4;lr_rule=linear").cells
    found = run.command(study(""), cell)
    assert found[2:] == [
        "--config=configs/simclr.py:digits",
        "--config.train.batch_size=64",
        "--config.train.epochs=4",
        "--config.optim.lr_rule=linear",
        "--config.train.steps=0",
        "--config.optim.lr=0.01",
        f"--workdir={study('').run(cell)}",
    ]
