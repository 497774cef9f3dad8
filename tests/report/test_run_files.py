import json

import numpy as np
import pytest

from ssl_jax.errors import BAD_DATA, MISSING_INPUT, Fault
from ssl_jax.report import run_files


def test_reads_all_files(finished_run):
    run = run_files.read_run(finished_run)
    assert (run.method, run.batch_size) == ("simclr", 32)
    assert set(run.evals) == {"knn", "linear_10"}
    assert len(run.metrics) == 50
    assert run.sample["features"].shape == (30, 8)


def test_metrics_skip_cut_lines_and_nulls_and_merge_repeated_steps(tmp_path):
    lines = [
        '{"step": 2, "loss": 3}',
        '{"step": 4, "loss": 9}',
        '{"step": 4, "loss": null, "lr": 1}',
    ]
    lines += ['{"step": 3, "loss": 2.5}', '{"step": 4, "lo']
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    run = run_files.read_run(tmp_path)
    assert [row["step"] for row in run.metrics] == [2, 3, 4]
    steps, values = run_files.metric_series(run, "loss")
    np.testing.assert_array_equal(steps, [2, 3])
    np.testing.assert_array_equal(values, [3, 2.5])
    assert [len(x) for x in run_files.metric_series(run, "absent")] == [0, 0]


@pytest.mark.parametrize("name", ["nowhere", "."])
def test_a_folder_without_a_run_is_refused(tmp_path, name):
    with pytest.raises(Fault, match=r"no such folder|train there first") as fault:
        run_files.read_run(tmp_path / name)
    assert fault.value.code == MISSING_INPUT


def test_a_damaged_config_is_a_fault_that_names_the_file(finished_run):
    (finished_run / "config.json").write_text("{")
    with pytest.raises(Fault, match=r"config\.json") as fault:
        run_files.read_run(finished_run)
    assert fault.value.code == BAD_DATA


@pytest.mark.parametrize("name", ["metadata.json", "eval/knn.json", "eval/sample.npz"])
def test_one_logged_line_names_each_damaged_file_that_is_ignored(finished_run, name, caplog):
    intact = run_files.read_run(finished_run)
    (finished_run / name).write_text("{")
    run = run_files.read_run(finished_run)
    assert [record.message.count(name) for record in caplog.records] == [1]
    lost = {"metadata.json": "metadata", "eval/knn.json": "evals", "eval/sample.npz": "sample"}
    for field in ("config", "metadata", "metrics", "evals"):
        if field != lost[name]:
            assert getattr(run, field) == getattr(intact, field)
    assert set(run.evals) == {"linear_10"} | ({"knn"} if name != "eval/knn.json" else set())
    assert bool(run.sample) == (name != "eval/sample.npz")


def test_skips_half_written_evaluations_and_other_json(finished_run):
    (finished_run / "eval" / ".linear.json").write_text("{")
    (finished_run / "eval" / "other.json").write_text(json.dumps({"note": "not an evaluation"}))
    assert set(run_files.read_run(finished_run).evals) == {"knn", "linear_10"}
