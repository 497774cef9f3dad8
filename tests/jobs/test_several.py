"""Two processes by the public command, parameters divided between them, beside one device."""

import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import pytest
from test_train import ROOT, SMALL, run, small

from ssl_jax.errors import BAD_CONFIG, CANNOT_CREATE, STOPPED_EARLY
from ssl_jax.jobs import goodput


@contextlib.contextmanager
def running(path, *flags, processes=2, before=(), program=("-m", "ssl_jax.train")):
    """The command in every process, as a launcher starts it; `path` may depend on the process.

    `before`: a module and its arguments, which get the command. `program`: in place of it.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    plain = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    fields = [f"--config.{name}={value}" for name, value in SMALL.items()]
    job = {"SSL_JAX_COORDINATOR": address, "SSL_JAX_PROCESSES": str(processes)}
    children = [
        subprocess.Popen(
            [
                *((sys.executable, "-m", *before) if before else ()),
                *(sys.executable, *program, "--config=configs/simclr.py:digits"),
                *(*fields, *flags, f"--workdir={path(number) if callable(path) else path}"),
            ],
            cwd=ROOT,
            env=plain
            | job
            | {"SSL_JAX_PROCESS": str(number), "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in range(processes)
    ]
    try:
        yield children
    finally:
        for child in children:
            for _ in range(3 if before else 0):  # a supervisor kills its command by the third
                child.terminate()
                time.sleep(0.2)
            child.kill()
            child.wait()
            child.stdout.close()


def start(path, *flags, **options):
    """[(exit code, output)] of all processes."""
    with running(path, *flags, **options) as children:
        outputs = [child.communicate(timeout=240)[0] for child in children]
    return [(child.returncode, output) for child, output in zip(children, outputs, strict=True)]


def wait_for(condition, child):
    while not condition():
        assert child.poll() is None, child.communicate()[0]
        time.sleep(0.05)


def test_a_signal_to_one_process_stops_both_at_one_step(tmp_path):
    path = tmp_path / "run"
    flags = ("--config.train.steps=5000", "--config.train.checkpoint_every=5000")
    with running(path, *flags) as children:
        wait_for(lambda: (path / "metrics.jsonl").exists() and len(metrics(path)) > 2, children[0])
        children[1].send_signal(signal.SIGTERM)
        outputs = [child.communicate(timeout=100)[0] for child in children]
    (step,) = [int(folder.name) for folder in (path / "checkpoints").iterdir()]
    assert (path / "checkpoints" / str(step) / "MANIFEST.json").exists()
    for child, output in zip(children, outputs, strict=True):
        assert child.returncode == STOPPED_EARLY, output
        assert f"SIGTERM on process 1: saved step {step}; run the same command again" in output
        assert "Traceback" not in output


@pytest.mark.slow
@pytest.mark.parametrize("targets", [(0,), (1,), (0, 1)], ids=str)
@pytest.mark.parametrize("phase", ["start", "save", "finish"])
def test_a_signal_in_any_phase_stops_both(tmp_path, phase, targets):
    path = tmp_path / "run"

    def begun():
        return goodput.heartbeat(path, 0).get("phase") == ("train" if phase == "save" else phase)

    # Saving after every step, most of the time in training is that of saves.
    steps = "--config.train.steps=5000" if phase == "save" else "--config.train.steps=3"
    with running(path, steps, "--config.train.checkpoint_every=1") as children:
        wait_for(begun, children[0])
        for target in targets:
            children[target].send_signal(signal.SIGTERM)
        outputs = [child.communicate(timeout=100)[0] for child in children]
    said = {re.search(r"SIGTERM on process \d: (.*);", output).group(1) for output in outputs}
    assert [child.returncode for child in children] == [STOPPED_EARLY] * 2, outputs
    if phase == "save":
        assert said == {f"saved step {goodput.saved_step(path)}"}
    else:
        assert said == {"nothing new to save"}
        assert goodput.saved_step(path) == (3 if phase == "finish" else 0)
    assert "Traceback" not in "".join(outputs)


@pytest.mark.slow
def test_supervisors_bring_two_processes_to_the_end(tmp_path):
    """One is preempted, and the other killed later: both are started again by themselves."""
    path = tmp_path / "run"
    flags = ("--config.train.steps=120", "--config.train.checkpoint_every=10")
    with running(path, *flags, before=("ssl_jax.supervise", "--max_backoff=1", "--")) as children:
        for goal, number in ((12, signal.SIGTERM), (40, signal.SIGKILL)):
            wait_for(lambda goal=goal: goodput.saved_step(path) >= goal, children[0])
            os.kill(goodput.heartbeat(path, 1)["pid"], number)
        outputs = [child.communicate(timeout=300)[0] for child in children]
    assert [child.returncode for child in children] == [0, 0], outputs
    assert "exit code 75: stopped early, its state is saved, step" in outputs[0]
    assert "exit code 137" in outputs[1]
    found = json.loads((path / "goodput.json").read_text())
    assert [life["code"] for life in found["lives"]][::2] == [75, 0]
    assert found["kept_steps"] == 120
    assert found["starts"] == 3
    steps = [line["step"] for line in metrics(path)]
    assert steps == list(range(1, 121))


def test_a_process_that_is_killed_is_named_by_the_other(tmp_path):
    path = tmp_path / "run"
    with running(path, "--config.train.steps=5000") as children:
        wait_for(lambda: (path / "metrics.jsonl").exists() and len(metrics(path)) > 2, children[0])
        children[1].kill()
        output, _ = children[0].communicate(timeout=100)
    assert children[0].returncode == STOPPED_EARLY, output
    assert "process 1 of 2 gone" in output


def metrics(path):
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def test_two_processes_train_as_one_device_does(tmp_path):
    # Seed 1: with seed 0 an activation so near to zero is met that rounding switches it.
    fields = ("--config.parallel.fsdp=2", "--config.train.seed=1", "--config.train.steps=3")
    (code, log), (other, quiet) = start(tmp_path / "two", *fields)
    assert (code, other) == (0, 0), log + quiet
    assert "2 processes, 2 devices" in log
    assert "process 1 on" in log
    assert "step 3/3" in log
    assert "step 3/3" not in quiet
    run(small(train__steps=3, train__seed=1), tmp_path / "one", devices=1, real=True)
    two, one = metrics(tmp_path / "two"), metrics(tmp_path / "one")
    assert [line["batch_hash"] for line in two] == [line["batch_hash"] for line in one]
    for mine, theirs in zip(two, one, strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-6)
    # What two processes wrote, one goes on from: 3 steps more.
    run(small(train__steps=3, train__seed=1), tmp_path / "two", devices=1, real=True)


FAILING = """
import time
from ssl_jax import cli
from ssl_jax.errors import BAD_DATA, Fault
from ssl_jax.jobs.stop import Stop

def main():
    with Stop() as stop:
        cli.start(stop)
        if cli.FLAGS.process == cli.FLAGS.failing:
            raise FAULT
        WAIT

cli.define_processes()
cli.flags.DEFINE_integer("failing", 0, "")
cli.run(main)
"""


ASLEEP = "time.sleep(60)"
IN_A_COLLECTIVE = """
        from jax.experimental import multihost_utils
        multihost_utils.sync_global_devices("all")
"""


@pytest.mark.parametrize("failing", [0, 1])
@pytest.mark.parametrize(
    ("fault", "waiting", "code", "message"),
    [
        ("ValueError('nobody foresaw this')", ASLEEP, 1, "ValueError: nobody foresaw this"),
        ("Fault('no image', BAD_DATA)", IN_A_COLLECTIVE, 65, "ssl_jax: no image"),
    ],
)
def test_what_ends_one_process_ends_all_by_its_code(failing, fault, waiting, code, message):
    """Not by JAX's abort, 134, after which a supervisor would start them again."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        flags = [f"--coordinator=127.0.0.1:{probe.getsockname()[1]}", "--processes=2"]
    program = FAILING.replace("FAULT", fault).replace("WAIT", waiting.strip())
    children = [
        subprocess.Popen(
            [sys.executable, "-c", program, *flags, f"--process={n}", f"--failing={failing}"],
            cwd=ROOT,
            env=os.environ | {"JAX_PLATFORMS": "cpu"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for n in range(2)
    ]
    told = [child.communicate(timeout=60)[1] for child in children]
    assert [child.returncode for child in children] == [code, code], told
    assert message in told[failing]
    assert f"process {failing} ended with exit code {code}" in told[1 - failing]


# The command, which does not wait half a minute for a file system to show a file.
HASTY = """
import runpy
from ssl_jax.parallel import processes
processes.LATE = 2
runpy.run_module("ssl_jax.train", run_name="__main__")
"""


def test_folders_that_are_not_shared_are_told_by_all(tmp_path):
    found = start(lambda number: tmp_path / str(number), program=("-c", HASTY))
    for code, output in found:
        assert code == CANNOT_CREATE, output
        assert "what process 0 wrote is not seen by 1" in output
        assert "Traceback" not in output


def test_what_process_0_refuses_ends_all(tmp_path):
    path = pathlib.Path(tmp_path / "run")
    path.mkdir()
    (path / "config.json").write_text(json.dumps(small(train__seed=7).to_dict()))
    (code, output), (other, told) = start(path)
    assert (code, other) == (BAD_CONFIG, BAD_CONFIG), output + told
    assert "train.seed: 7 -> 0" in output
    assert "its message says why" in told
