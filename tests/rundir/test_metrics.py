"""metrics.jsonl is complete and resumable, TensorBoard may fail, and progress lines are right."""

import builtins
import json
import math
import types

import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.errors import IO_ERROR, Fault
from ssl_jax.rundir import metrics
from ssl_jax.rundir.metrics import MetricWriter, Progress


def writer(folder, **options):
    return MetricWriter(folder, **({"tensorboard": False} | options))


def records(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def log(folder, steps, **options):
    with writer(folder, **options) as out:
        for step in steps:
            out.write(step, {"loss": 1 / step, "lr": 0.1})


def test_each_step_is_one_json_line(tmp_path):
    with writer(tmp_path) as out:
        out.write(10, {"loss": np.float32(0.5), "accuracy": jnp.float32(0.25)})
        # The line is readable before the file is closed.
        assert records(tmp_path) == [{"step": 10, "loss": 0.5, "accuracy": 0.25}]
        out.write(20, {"loss": 3})
    assert records(tmp_path)[1] == {"step": 20, "loss": 3.0}


def test_values_that_are_not_finite_become_null(tmp_path):
    with writer(tmp_path) as out:
        out.write(1, {"loss": math.nan, "a": math.inf, "b": -math.inf, "c": 0.0})
    text = (tmp_path / "metrics.jsonl").read_text()
    assert text == '{"step": 1, "loss": null, "a": null, "b": null, "c": 0.0}\n'


def test_resumed_log_equals_an_uninterrupted_one(tmp_path):
    for name in ("uninterrupted", "killed"):
        (tmp_path / name).mkdir()
    log(tmp_path / "uninterrupted", range(10, 101, 10))
    log(tmp_path / "killed", range(10, 71, 10))  # the last checkpoint is of step 50
    with (tmp_path / "killed" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 80, "lo')
    log(tmp_path / "killed", range(60, 101, 10), resume_step=50)
    want = (tmp_path / "uninterrupted" / "metrics.jsonl").read_bytes()
    assert (tmp_path / "killed" / "metrics.jsonl").read_bytes() == want
    assert [p.name for p in (tmp_path / "killed").iterdir()] == ["metrics.jsonl"]


def test_line_without_newline_is_dropped_even_if_it_parses(tmp_path):
    log(tmp_path, [10])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 20, "loss": 0.05}')
    log(tmp_path, [20], resume_step=20)
    assert [r["step"] for r in records(tmp_path)] == [10, 20]
    assert records(tmp_path)[1]["lr"] == 0.1


def test_lines_that_are_not_records_are_dropped(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n\n[]\n7\n{"loss": 2}\nx\n{"step": 2}\n')
    log(tmp_path, [3], resume_step=2)
    assert [r["step"] for r in records(tmp_path)] == [1, 2, 3]


def test_new_run_starts_an_empty_log(tmp_path):
    log(tmp_path, [10, 20])
    log(tmp_path, [10])
    assert [r["step"] for r in records(tmp_path)] == [10]


def test_failure_while_dropping_lines_keeps_the_log(tmp_path, monkeypatch):
    log(tmp_path, [10, 20])

    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(Fault, match="No space left on device") as caught:
        writer(tmp_path, resume_step=10)
    assert caught.value.code == IO_ERROR
    assert [r["step"] for r in records(tmp_path)] == [10, 20]


def test_full_disk_is_a_fault(tmp_path):
    out = writer(tmp_path)
    out._file.close()
    out._file = open("/dev/full", "a")  # noqa: SIM115 - the writer closes it
    with pytest.raises(Fault, match="No space left on device") as caught, out:
        out.write(1, {"loss": 1.0})
    assert caught.value.code == IO_ERROR
    assert str(tmp_path / "metrics.jsonl") in str(caught.value)


def test_other_processes_write_nothing(tmp_path):
    log(tmp_path, [1], is_main=False, tensorboard=True)
    assert list(tmp_path.iterdir()) == []


def test_missing_tensorboard_is_one_warning_and_the_log_is_complete(tmp_path, monkeypatch, caplog):
    real_import = builtins.__import__

    def import_without_clu(name, *args):
        if name.startswith("clu"):
            raise ModuleNotFoundError("No module named 'tensorflow'")
        return real_import(name, *args)

    monkeypatch.setattr(builtins, "__import__", import_without_clu)
    log(tmp_path, [1, 2], tensorboard=True)
    assert [r["step"] for r in records(tmp_path)] == [1, 2]
    assert [r.getMessage() for r in caplog.records] == [
        "TensorBoard events stop: No module named 'tensorflow'; metrics.jsonl continues"
    ]


@pytest.mark.parametrize("method", ["write_scalars", "close"])
def test_failing_tensorboard_is_one_warning(tmp_path, monkeypatch, caplog, method):
    def fail(*args):
        raise RuntimeError("events gone\nand a wall of text")

    tensorboard = types.SimpleNamespace(write_scalars=lambda *args: None, close=lambda: None)
    setattr(tensorboard, method, fail)
    monkeypatch.setattr(metrics, "_summary_writer", lambda folder: tensorboard)
    log(tmp_path, [1, 2, 3], tensorboard=True)
    assert [r["step"] for r in records(tmp_path)] == [1, 2, 3]
    warnings = [r.getMessage() for r in caplog.records]
    assert warnings == ["TensorBoard events stop: events gone; metrics.jsonl continues"]


def test_tensorboard_events_hold_the_numbers(tmp_path):
    pytest.importorskip("clu.metric_writers")
    loading = pytest.importorskip("tensorboard.backend.event_processing.event_file_loader")
    from tensorboard.util import tensor_util

    log(tmp_path, [2, 4], tensorboard=True)
    (path,) = tmp_path.glob("events.out.tfevents.*")
    scalars = {}
    for event in loading.EventFileLoader(str(path)).Load():
        for value in event.summary.value:
            scalars[value.tag, event.step] = float(tensor_util.make_ndarray(value.tensor))
    assert scalars == {
        ("loss", 2): 0.5, ("lr", 2): pytest.approx(0.1),
        ("loss", 4): 0.25, ("lr", 4): pytest.approx(0.1),
    }  # fmt: skip


def progress(*, start_step=0, **options):
    """Returns a clock, a list that the test sets, and a Progress that reads it."""
    time = [100.0]
    options = {"total_steps": 1000, "batch_size": 64, "epoch_size": 640} | options
    return time, Progress(start_step=start_step, clock=lambda: time[0], **options)


def test_progress_line_matches_hand_worked_values():
    time, line = progress()
    time[0] += 30  # compilation
    values = {"loss": 4.12345, "contrastive_accuracy": 0.5, "probe_accuracy": 0.123, "lr": 0.0123}
    assert line(10, values | {"alignment": 1.0}) == (
        "step 10/1000  epoch 1.00  loss 4.1235  contrastive accuracy 50.0%"
        "  probe accuracy 12.3%  lr 0.0123",
        {"epoch": 1.0},
    )
    time[0] += 2  # ten steps of 64 images in 2 s; 980 steps at 0.2 s are 196 s
    text, rates = line(20, {"loss": 4.0})
    assert text == "step 20/1000  epoch 2.00  loss 4.0000  320 images/s  0:03:16 left"
    assert rates == {"epoch": 2.0, "images_per_second": pytest.approx(320)}


def test_progress_line_shows_collapse_metrics():
    values = {"contrastive_accuracy": 0.43, "contrastive_chance": 1 / 255}
    values |= {"effective_rank": 37.4, "target_distance": 0.01234}
    assert progress()[1](10, values)[0] == (
        "step 10/1000  epoch 1.00  contrastive accuracy 43.0% (chance 0.39%)  rank 37"
        "  target distance 0.0123"
    )


def test_progress_line_shows_the_pretext_task():
    values = {"pretext_accuracy": 0.431, "pretext_chance": 0.25}
    values |= {"reconstruction_error": 0.0123, "reconstruction_chance": 0.0456}
    assert progress()[1](10, values)[0] == (
        "step 10/1000  epoch 1.00  pretext accuracy 43.1% (chance 25%)"
        "  reconstruction error 0.0123 (chance 0.0456)"
    )


def test_progress_speed_is_recent_and_time_left_uses_all_lines():
    time, line = progress(start_step=500)
    line(510, {})
    time[0] += 2
    line(520, {})
    time[0] += 6  # three times slower; over all lines, 8 s for 20 steps
    text, rates = line(530, {})
    assert rates["images_per_second"] == pytest.approx(64 * 10 / 6)
    assert text.endswith("107 images/s  0:03:08 left")  # 470 steps at 0.4 s


def test_progress_survives_a_clock_that_does_not_advance():
    _, line = progress()
    line(10, {})
    assert line(20, {}) == ("step 20/1000  epoch 2.00", {"epoch": 2.0})
    assert line(20, {})[1] == {"epoch": 2.0}


def test_noise_scale_is_the_ratio_of_means():
    noise_scale = metrics.NoiseScale()
    assert noise_scale({"loss": 1.0}) == {}
    assert noise_scale({"gradient_noise": 3.0, "gradient_signal": -1.0}) == {}
    # The steps' ratios are 2 and 6, with mean 4. The ratio of the means is 10/3.
    for k in range(2000):
        step = {"gradient_noise": 4.0 + 2 * (k % 2), "gradient_signal": 2.0 - k % 2}
        result = noise_scale(step)["noise_scale"] if k > 100 else noise_scale(step)
    assert result == pytest.approx(10 / 3, rel=0.02)
