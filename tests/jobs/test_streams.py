"""A command continues when nobody can read its output any more."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PRINTING = """
import pathlib
from ssl_jax import cli

def main():
    for step in range(3):
        print("step", step, flush=True)
    pathlib.Path(cli.FLAGS.workdir, "done").touch()

cli.define_workdir()
cli.run(main)
"""


def closed_pipe():
    read, written = os.pipe()
    os.close(read)
    return written


def full_disk():
    return os.open("/dev/full", os.O_WRONLY)


@pytest.mark.parametrize(
    ("stdout", "reason"),
    [(closed_pipe, "Broken pipe"), (full_disk, "No space left on device")],
)
@pytest.mark.parametrize("both", [False, True])
def test_a_command_continues_without_its_output(stdout, reason, both, tmp_path):
    out = stdout()
    done = subprocess.run(
        [sys.executable, "-c", PRINTING, f"--workdir={tmp_path}"],
        cwd=ROOT,
        stdout=out,
        stderr=out if both else subprocess.PIPE,
        text=True,
    )
    assert (done.returncode, (tmp_path / "done").exists()) == (0, True), done.stderr
    if not both:
        message = f"ssl_jax: cannot write to <stdout>: {reason}; continuing without it\n"
        assert done.stderr == message


def test_a_request_for_stacks_does_not_end_a_command():
    script = """
import os, signal
from ssl_jax import cli

def main():
    os.kill(os.getpid(), signal.SIGUSR1)
    print("continued")

cli.run(main)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "continued\n"
    assert "in main" in done.stderr  # the stack of the main thread
