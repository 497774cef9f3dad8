"""Jobs of two processes, started with the public command."""

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
from ssl_jax.jobs import heartbeat, progress


@contextlib.contextmanager
def running(
    path,
    *flags,
    processes=2,
    before=(),
    program=("-m", "ssl_jax.train"),
    config="configs/simclr.py:digits",
    own=lambda number: {},
):
    """Starts the command in every process, like a launcher.

    Args:
      path: the workdir, or a function of the process number that returns it.
      flags: further flags of the command.
      processes: number of processes.
      before: a module with arguments that receives the command, such as the supervisor.
      program: replaces `-m ssl_jax.train`.
      config: value of --config.
      own: function of the process number that returns what only this process gets: "flags", "env",
        "cwd" or "program".
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
                *(sys.executable, *own(number).get("program", program), f"--config={config}"),
                *(*fields, *flags, f"--workdir={path(number) if callable(path) else path}"),
                *own(number).get("flags", ()),
            ],
            cwd=own(number).get("cwd", ROOT),
            env=plain
            | job
            | {"SSL_JAX_PROCESS": str(number), "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}
            | own(number).get("env", {}),
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
            for _ in range(3 if before else 0):  # the third signal makes a supervisor kill COMMAND
                child.terminate()
                time.sleep(0.2)
            child.kill()
            child.wait()
            child.stdout.close()


def start(path, *flags, **options):
    """Runs the command to its end; returns [(exit code, output)] of all processes."""
    with running(path, *flags, **options) as children:
        outputs = [child.communicate(timeout=240)[0] for child in children]
    return [(child.returncode, output) for child, output in zip(children, outputs, strict=True)]


def wait_for(condition, child):
    while not condition():
        assert child.poll() is None, child.communicate()[0]
        time.sleep(0.05)


def test_a_signal_to_one_process_stops_both_at_the_same_step(tmp_path):
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

    def phase_started():
        if phase == "save":
            return progress.saved_step(path) > 0
        return heartbeat.read(path, 0).get("phase") == phase

    # With a save after every step, most of the training time is spent on saves.
    steps = "--config.train.steps=5000" if phase == "save" else "--config.train.steps=3"
    with running(path, steps, "--config.train.checkpoint_every=1") as children:
        wait_for(phase_started, children[0])
        for target in targets:
            children[target].send_signal(signal.SIGTERM)
        outputs = [child.communicate(timeout=100)[0] for child in children]
    messages = {re.search(r"SIGTERM on process \d: (.*);", output).group(1) for output in outputs}
    assert [child.returncode for child in children] == [STOPPED_EARLY] * 2, outputs
    if phase == "save":
        assert messages == {f"saved step {progress.saved_step(path)}"}
    else:
        assert messages == {"nothing new to save"}
        assert progress.saved_step(path) == (3 if phase == "finish" else 0)
    assert "Traceback" not in "".join(outputs)


@pytest.mark.slow
def test_supervisors_finish_a_run_after_a_preemption_and_a_kill(tmp_path):
    """The supervisors restart a preempted process and, later, a killed one."""
    path = tmp_path / "run"
    flags = ("--config.train.steps=120", "--config.train.checkpoint_every=10")
    with running(path, *flags, before=("ssl_jax.supervise", "--max_backoff=1", "--")) as children:
        for goal, number in ((12, signal.SIGTERM), (40, signal.SIGKILL)):
            wait_for(lambda goal=goal: progress.saved_step(path) >= goal, children[0])
            os.kill(heartbeat.read(path, 1)["pid"], number)
        outputs = [child.communicate(timeout=300)[0] for child in children]
    assert [child.returncode for child in children] == [0, 0], outputs
    assert "exit code 75: stopped early, its state is saved, step" in outputs[0]
    assert "exit code 137" in outputs[1]
    history = json.loads((path / "goodput.json").read_text())
    assert [life["code"] for life in history["lives"]][::2] == [75, 0]
    assert history["kept_steps"] == 120
    assert history["starts"] == 3
    steps = [line["step"] for line in metrics(path)]
    assert steps == list(range(1, 121))


def test_the_other_process_names_a_killed_process(tmp_path):
    path = tmp_path / "run"
    # No save is running when the process is killed: JAX may abort a process that waits for another
    # one's part of a save.
    flags = ("--config.train.steps=5000", "--config.train.checkpoint_every=5000")
    with running(path, *flags) as children:
        wait_for(lambda: (path / "metrics.jsonl").exists() and len(metrics(path)) > 2, children[0])
        children[1].kill()
        output, _ = children[0].communicate(timeout=100)
    assert children[0].returncode == STOPPED_EARLY, output
    assert "process 1 of 2 gone" in output


def metrics(path):
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


# The command; in process 1, the score itself rises in every evaluation.
RISING_IN_PROCESS_1 = """
import itertools, runpy
import jax
from ssl_jax.training import early_stop
decided, rise = early_stop._of_process_0, itertools.count()
early_stop._of_process_0 = lambda score: decided(score + jax.process_index() * next(rise))
runpy.run_module("ssl_jax.train", run_name="__main__")
"""


@pytest.mark.slow
@pytest.mark.parametrize("on", ["probe", "knn"])
def test_two_processes_stop_early_at_the_same_step(tmp_path, on):
    flags = (f"--config.train.stop_on={on}", "--config.train.stop_every=1")
    # The encoder learns nothing, so no score is above the first for long.
    flags += ("--config.train.stop_patience=1", "--config.train.steps=60", "--config.optim.lr=0.0")
    results = start(tmp_path / "run", *flags, program=("-c", RISING_IN_PROCESS_1))
    assert [code for code, _ in results] == [0, 0], results
    stopped = json.loads((tmp_path / "run" / "metadata.json").read_text())["stopped_early"]
    step, lines = stopped["step"], metrics(tmp_path / "run")
    assert step < 60
    assert [line["step"] for line in lines] == list(range(1, step + 1))
    *rising, last = [line["stopping_score"] for line in lines]
    assert rising == sorted(set(rising))
    assert last <= rising[-1]
    # Process 1 took part in the last checkpoint, which both reach only together.
    assert progress.saved_step(tmp_path / "run") == step


def test_two_processes_with_fsdp_match_one_device(tmp_path):
    # Seed 1, because with seed 0 an activation is so close to zero that rounding changes its sign.
    fields = ("--config.parallel.fsdp=2", "--config.train.seed=1", "--config.train.steps=3")
    (code_0, output_0), (code_1, output_1) = start(tmp_path / "two", *fields)
    assert (code_0, code_1) == (0, 0), output_0 + output_1
    assert "2 processes, 2 devices" in output_0
    assert "process 1 on" in output_0
    assert "step 3/3" in output_0
    assert "step 3/3" not in output_1
    run(small(train__steps=3, train__seed=1), tmp_path / "one", devices=1, real=True)
    two, one = metrics(tmp_path / "two"), metrics(tmp_path / "one")
    assert [line["batch_hash"] for line in two] == [line["batch_hash"] for line in one]
    for mine, theirs in zip(two, one, strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-6)
    # One process resumes from the checkpoint that two processes wrote.
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
        ("ValueError('unexpected')", ASLEEP, 1, "ValueError: unexpected"),
        ("Fault('no image', BAD_DATA)", IN_A_COLLECTIVE, 65, "ssl_jax: no image"),
    ],
)
def test_an_error_in_one_process_ends_all_with_its_code(failing, fault, waiting, code, message):
    """Exit code 134 of JAX's abort would make a supervisor restart them."""
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
    errors = [child.communicate(timeout=60)[1] for child in children]
    assert [child.returncode for child in children] == [code, code], errors
    assert message in errors[failing]
    assert f"process {failing} ended with exit code {code}" in errors[1 - failing]


# The command with a shorter wait for a file on a network file system.
IMPATIENT = """
import runpy
from ssl_jax.jobs import bootstrap
bootstrap.FILE_TIMEOUT = 2
runpy.run_module("ssl_jax.train", run_name="__main__")
"""


def test_all_processes_refuse_a_workdir_that_is_not_shared(tmp_path):
    results = start(lambda number: tmp_path / str(number), program=("-c", IMPATIENT))
    for code, output in results:
        assert code == CANNOT_CREATE, output
        assert "do not see a file that process 0 wrote there: 1. Pass a --workdir" in output
        assert "Traceback" not in output


def test_a_config_that_process_0_refuses_ends_all(tmp_path):
    path = pathlib.Path(tmp_path / "run")
    path.mkdir()
    (path / "config.json").write_text(json.dumps(small(train__seed=7).to_dict()))
    (path / "metrics.jsonl").write_text('{"step": 1}\n')
    (code_0, output_0), (code_1, output_1) = start(path)
    assert (code_0, code_1) == (BAD_CONFIG, BAD_CONFIG), output_0 + output_1
    assert "train.seed: was 7, is now 0" in output_0
    assert "see its message for the cause" in output_1
