"""SIGKILL, at any moment: in a file of its own, so that it runs beside the other trainings."""

import os
import random
import subprocess
import sys
import time

import pytest
from test_train import ROOT, SMALL, assert_same_run, run, small


def test_killed_at_a_random_moment_it_resumes_to_the_same_bits(tmp_path):
    """Once, through the command; what it is compared with trains here, on the same 8 devices."""
    fields = {"train.steps": 12, "train.checkpoint_every": 2}
    kill(fields, tmp_path / "killed", after=[5])
    resumed = start(fields, tmp_path / "killed")
    assert "resumed at step" in resumed.communicate(timeout=300)[0]
    assert resumed.returncode == 0
    whole = small(**{name.replace(".", "__"): value for name, value in fields.items()})
    run(whole, tmp_path / "whole", devices=8, real=True)
    assert_same_run(tmp_path / "killed", tmp_path / "whole", 12)


@pytest.mark.slow
def test_killed_again_and_again_as_compiled_for_users(tmp_path):
    """Every step is saved, so that most of the kills fall into a save."""
    fields = {"train.steps": 40, "train.checkpoint_every": 1}
    kill(fields, tmp_path / "killed", after=[8, 16, 24], XLA_FLAGS="")
    for name in ("killed", "whole"):
        process = start(fields, tmp_path / name, XLA_FLAGS="")
        process.communicate(timeout=300)
        assert process.returncode == 0
    assert_same_run(tmp_path / "killed", tmp_path / "whole", 40)


def start(fields, path, **environment):
    """The command, as a user starts it."""
    command = [sys.executable, "-m", "ssl_jax.train", "--config=configs/simclr.py:digits"]
    command += [f"--config.{name}={value}" for name, value in (SMALL | fields).items()]
    return subprocess.Popen(
        [*command, f"--workdir={path}"],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"} | environment,
        stdout=subprocess.PIPE,
        text=True,
    )


def kill(fields, path, after, **environment):
    """One life for each step of `after`, ended soon after it; the seed is printed to replay it."""
    seed = random.SystemRandom().randrange(10**6)
    print(f"kill schedule of seed {seed}")
    moments = random.Random(seed)
    for goal in after:
        process = start(fields, path, **environment)
        while process.poll() is None and last_step(path) < goal:
            time.sleep(0.02)
        time.sleep(moments.random() * 0.3)
        process.kill()
        process.communicate()


def last_step(path):
    try:
        return len((path / "metrics.jsonl").read_text().splitlines())
    except FileNotFoundError:
        return 0
