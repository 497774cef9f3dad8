"""The command `python -m ssl_jax.plan`."""

import importlib.util
import json
import os
import pathlib
import resource
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
DIGITS = "--config=configs/simclr.py:digits"
TINY = (
    "--config.model.width=0.125",
    "--config.train.batch_size=16",
    "--config.method.hidden_dim=8",
)


def plan(*arguments):
    """Runs the command and returns (exit code, stdout, stderr, CPU seconds)."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = subprocess.run(
        [sys.executable, "-m", "ssl_jax.plan", *arguments],
        cwd=ROOT,
        env=os.environ.copy(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert "Traceback" not in result.stderr, result.stderr
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return result.returncode, result.stdout, result.stderr, seconds


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--topology=v5e:16y16",), 64, "v5e"),
        (("--topology=cpu:8,cpu:4",), 64, "--sweep"),
        (("--topology=cpu:8", "--batches=64"), 64, "add --sweep"),
        (("--topology=cpu:8", "--sweep", "--price=cpu"), 64, "CHIP=NUMBER"),
        (("--topology=cpu:8", "--sweep", "--price=v4=1"), 64, "lacks cpu"),
        (
            ("--topology=cpu:8", "--config.train.batch_size=100"),
            78,
            "nearest valid sizes: 96, 104",
        ),
        (("--topology=cpu:8", "--config.data.source=tfds:mine"), 64, "--images=NUMBER"),
        (("--topology=cpu:8", "--config.optim.lrr=1"), 78, "did you mean"),
    ],
)
def test_mistakes_are_reported_before_jax_is_imported(arguments, code, words, tmp_path):
    actual, _, message, seconds = plan(DIGITS, f"--output={tmp_path}/plan", *arguments)
    assert actual == code, message
    assert words in message
    assert not (tmp_path / "plan").exists()
    assert seconds < 2, f"took {seconds:.1f} s"


def test_plan_with_check_then_again_from_the_cache(tmp_path):
    """The first call compiles for 8 virtual devices and runs the step; the second does neither."""
    command = (DIGITS, *TINY, "--topology=cpu:8", f"--output={tmp_path}")
    code, output, message, _ = plan(*command, "--check")
    assert code == 0, message
    assert "cpu:8" in output
    assert "FITS" in output
    content = json.loads((tmp_path / "plan.json").read_text())
    forecast, measured = content["forecast"], content["checked"]
    # The batch has 16 tiny images, so load on this machine may change the time by a factor. An
    # error in the model would be a factor of a thousand.
    assert 1 / 30 < measured["step"] / forecast["step"] < 30
    assert content["totals"]["steps"] == 36 * 1297 // 16 + 1
    gradients = [c for c in forecast["collectives"] if c["kind"] == "all-reduce"]
    assert max(c["group"] for c in gradients) == 8
    assert (tmp_path / "plan.html").read_text().count("data:image/png") == 3
    code, again, message, _ = plan(*command)
    assert code == 0, message
    assert "Predicted and measured" not in again
    assert json.loads((tmp_path / "plan.json").read_text())["forecast"] == forecast


@pytest.mark.slow
def test_sweep_continues_after_invalid_sizes_and_names_the_cheapest(tmp_path):
    command = (DIGITS, *TINY, "--topology=cpu:2", "--sweep", "--batches=16,17", "--price=cpu=2")
    code, output, message, _ = plan(*command, f"--output={tmp_path}")
    assert code == 0, message
    assert "nearest valid sizes: 16, 18" in output
    assert "Cheapest that fits: cpu:2, batch 16" in output
    first, second = json.loads((tmp_path / "sweep.json").read_text())
    assert (first["batch_size"], second["plan"]) == (16, None)
    hours = first["plan"]["totals"]["chip_hours"]
    assert f"cost {2 * hours:,.2f}" in output
    assert (tmp_path / "cpu-2-b16-m0-f1" / "plan.html").exists()


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("libtpu"), reason="pip install libtpu")
def test_plan_of_a_small_tpu_slice(tmp_path):
    code, output, message, _ = plan(DIGITS, *TINY, "--topology=v5e:2x2", f"--output={tmp_path}")
    assert code == 0, message
    assert "v5e:2x2: 4 chips" in output
    content = json.loads((tmp_path / "plan.json").read_text())
    assert content["forecast"]["inside"] > 0
