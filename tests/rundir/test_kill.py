"""Runs killed by SIGKILL at random moments resume to the same bits.

A file of its own, so that parallel test workers run it beside the other trainings.
"""

import os
import random
import subprocess
import sys
import time

import pytest
from test_train import ROOT, SMALL, assert_same_run, run, small


def test_run_killed_at_a_random_moment_resumes_to_the_same_bits(tmp_path):
    """The killed run uses the command. The reference run trains here, on the same 8 devices."""
    fields = {"train.steps": 12, "train.checkpoint_every": 2}
    train_and_kill(fields, tmp_path / "killed", steps=[5])
    resumed = start(fields, tmp_path / "killed")
    assert "resumed at step" in resumed.communicate(timeout=300)[0]
    assert resumed.returncode == 0
    reference = small(**{name.replace(".", "__"): value for name, value in fields.items()})
    run(reference, tmp_path / "uninterrupted", devices=8, real=True)
    assert_same_run(tmp_path / "killed", tmp_path / "uninterrupted", 12)


@pytest.mark.slow
def test_run_killed_repeatedly_with_the_compiler_flags_of_users_resumes_to_the_same_bits(tmp_path):
    """Every step is saved, so that most kills happen during a save."""
    fields = {"train.steps": 40, "train.checkpoint_every": 1}
    train_and_kill(fields, tmp_path / "killed", steps=[8, 16, 24], XLA_FLAGS="")
    for name in ("killed", "uninterrupted"):
        process = start(fields, tmp_path / name, XLA_FLAGS="")
        process.communicate(timeout=300)
        assert process.returncode == 0
    assert_same_run(tmp_path / "killed", tmp_path / "uninterrupted", 40)


def start(fields, path, **environment):
    """Starts the command as a user does."""
    command = [sys.executable, "-m", "ssl_jax.train", "--config=configs/simclr.py:digits"]
    command += [f"--config.{name}={value}" for name, value in (SMALL | fields).items()]
    return subprocess.Popen(
        [*command, f"--workdir={path}"],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"} | environment,
        stdout=subprocess.PIPE,
        text=True,
    )


def train_and_kill(fields, path, steps, **environment):
    """Starts the command once for each of `steps` and kills it soon after that step.

    Prints the seed of the random delays, so that a failure can be replayed.
    """
    seed = random.SystemRandom().randrange(10**6)
    print(f"kill schedule of seed {seed}")
    delays = random.Random(seed)
    for step in steps:
        process = start(fields, path, **environment)
        while process.poll() is None and logged_steps(path) < step:
            time.sleep(0.02)
        time.sleep(delays.random() * 0.3)
        process.kill()
        process.communicate()


def logged_steps(path):
    try:
        return len((path / "metrics.jsonl").read_text().splitlines())
    except FileNotFoundError:
        return 0
