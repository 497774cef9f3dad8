"""A workdir without checkpoints: lost checkpoints are told from a run that never saved."""

import json
import pathlib

import pytest

from ssl_jax.errors import BAD_CHECKPOINT, CANNOT_CREATE, Fault
from ssl_jax.rundir import history
from ssl_jax.rundir.workdir import Workdir, absolute


@pytest.fixture
def run(tmp_path):
    """The workdir of a run that saves every 100 steps."""
    run = Workdir(absolute(tmp_path))
    run.write_json("config.json", {"train": {"checkpoint_every": 100}})
    return run


def write_metrics(run, steps, end=""):
    lines = "".join(json.dumps({"step": step, "loss": 1.0}) + "\n" for step in steps)
    (run.path / "metrics.jsonl").write_text(lines + end)


def content(run):
    files = [p for p in pathlib.Path(run.path).rglob("*") if p.is_file()]
    return {p: p.read_bytes() for p in files}


def refusal(run):
    before = content(run)
    with pytest.raises(Fault, match="Nothing was changed") as refused:
        history.start_anew(run, 7)
    assert refused.value.code == BAD_CHECKPOINT
    assert content(run) == before
    return str(refused.value)


def test_new_run_starts(tmp_path):
    run = Workdir(absolute(tmp_path))
    history.start_anew(run, 7)
    assert content(run) == {}


def test_history_beyond_the_second_save_is_refused(run):
    write_metrics(run, range(1, 1001), end='{"step": 10')
    message = refusal(run)
    assert f"{run.path} has no checkpoint, but metrics.jsonl reaches step 1000" in message
    assert f"mv {run.path} {run.path}.old" in message
    write_metrics(run, [201])
    assert "reaches step 201" in refusal(run)


def test_results_of_an_evaluation_are_refused(run):
    write_metrics(run, range(1, 21))
    (run.path / "eval").mkdir()
    (run.path / "eval" / "knn.json").write_text("{}")
    assert "eval/knn.json exists" in refusal(run)


def test_lines_of_attempts_before_the_first_save_are_kept(run, capsys):
    for attempt in range(2):
        write_metrics(run, range(1, 201), end='{"step": 2')
        history.start_anew(run, 7)
        assert not (run.path / "metrics.jsonl").exists()
        lines = (run.path / "metrics.discarded.jsonl").read_text().splitlines()
        assert lines[-2:] == ['{"step": 200, "loss": 1.0}', '{"step": 2']
        assert len(lines) == 201 * (attempt + 1)
    assert "no step was saved before" in capsys.readouterr().out


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"train": []}', '{"train": {"checkpoint_every": "x"}}']
)
def test_with_a_damaged_config_the_current_interval_counts(run, text):
    (run.path / "config.json").write_text(text)
    write_metrics(run, range(1, 15))
    history.start_anew(run, 7)
    write_metrics(run, range(1, 16))
    assert "reaches step 15" in refusal(run)


@pytest.mark.parametrize("name", ["metrics.jsonl", "metrics.discarded.jsonl"])
def test_a_file_outside_is_not_copied_into_the_workdir(run, tmp_path_factory, name):
    secret = tmp_path_factory.mktemp("outside") / "secret"
    secret.write_text("secret")
    if name != "metrics.jsonl":
        write_metrics(run, [1])
    pathlib.Path(run.path / name).symlink_to(secret)
    with pytest.raises(Fault, match=f"{name}: it is a link") as refused:
        history.start_anew(run, 7)
    assert refused.value.code == CANNOT_CREATE
    assert not [p for p in content(run) if not p.is_symlink() and "secret" in p.read_text()]


def test_without_config_the_current_interval_counts(run):
    (run.path / "config.json").unlink()
    write_metrics(run, range(1, 15))
    history.start_anew(run, 7)
    write_metrics(run, range(1, 16))
    assert "reaches step 15" in refusal(run)
