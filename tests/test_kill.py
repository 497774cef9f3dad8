"""SIGKILL, at any moment: in a file of its own, so that it runs beside the other trainings."""

import os
import random
import subprocess
import sys
import time

from test_train import ROOT, SMALL, assert_same_run


def test_killed_at_any_moment_it_resumes_to_the_same_bits(tmp_path):
    """SIGKILL at random moments, through the command; the seed is printed to replay it."""
    fields = SMALL | {"train.steps": 40, "train.checkpoint_every": 1}
    command = [sys.executable, "-m", "ssl_jax.train", "--config=configs/simclr.py:digits"]
    command += [f"--config.{name}={value}" for name, value in fields.items()]
    environment = os.environ | {"XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}

    def start(path):
        return subprocess.Popen(
            [*command, f"--workdir={path}"], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL
        )

    seed = random.SystemRandom().randrange(10**6)
    print(f"kill schedule of seed {seed}")
    moments = random.Random(seed)
    for kill in range(3):
        process = start(tmp_path / "killed")
        goal = 8 * (kill + 1)  # a step after which to die, so that every life gets somewhere
        while process.poll() is None and _last_step(tmp_path / "killed") < goal:
            time.sleep(0.02)
        time.sleep(moments.random() * 0.3)
        process.kill()
        process.wait()
    assert start(tmp_path / "killed").wait(timeout=300) == 0
    assert start(tmp_path / "whole").wait(timeout=300) == 0
    assert_same_run(tmp_path / "killed", tmp_path / "whole", 40)


def _last_step(path):
    try:
        return len((path / "metrics.jsonl").read_text().splitlines())
    except FileNotFoundError:
        return 0
