"""SIGTERM at random moments of a two-process run: clean stops, and an unchanged result.

    python -m benchmarks.preempt --signals=20

Trains SimCLR on digits with the public command in two processes over gloo. One or both get SIGTERM
at a random moment of a random phase: before all processes connected, start and compilation,
training, or evaluation and report. Then the same command is run again. Checkpoint and log of every
completed run are compared with those of an uninterrupted run. A stop is clean if both processes
exit with code 75 and report the same saved step, or report that there is nothing new to save.
"""

import itertools
import json
import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from typing import Any

from absl import app, flags

from ssl_jax.jobs import heartbeat, progress

FLAGS = flags.FLAGS
ROOT = pathlib.Path(__file__).resolve().parent.parent
# "meeting" lasts until all processes connected; heartbeats report the other phases.
PHASES = ("meeting", "start", "train", "finish")
FIELDS = {
    "data.eval_split": "",
    "model.width": 0.125,
    "method.hidden_dim": 16,
    "method.output_dim": 8,
    "train.batch_size": 64,
    "train.log_every": 1,
    "train.checkpoint_every": 25,
}
STOP_MESSAGE = re.compile(r"ssl_jax: SIG\w+(?: on process \d)?: (.*?); run the same command again")


def main(_: Any) -> None:
    """Runs the benchmark; see the module's docstring."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    seed = FLAGS.seed or random.SystemRandom().randrange(10**6)
    print(f"seed {seed}", flush=True)
    moments = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        reference = pathlib.Path(folder, "reference")
        lengths = run_reference(reference, folder)
        phases = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in lengths.items())
        print("uninterrupted run:", phases, flush=True)
        clean = sent = runs = 0
        while sent < FLAGS.signals:
            workdir = pathlib.Path(folder, f"interrupted{runs}")
            print(f"{sent + 1:3}: ", end="")
            is_clean = run_and_stop(workdir, folder, lengths, moments)
            if is_clean is not None:
                sent, clean = sent + 1, clean + is_clean
            if progress.saved_step(workdir) == FLAGS.steps:
                print(f"     run {runs} completed: {difference(reference, workdir)}", flush=True)
                runs += 1
        workdir = pathlib.Path(folder, f"interrupted{runs}")
        codes = [process.wait() for process in start(workdir, folder)]
        print(f"last start: codes {codes}; {difference(reference, workdir)}")
        print(f"{clean} of {sent} stops clean")


def run_reference(workdir: pathlib.Path, folder: str) -> dict[str, float]:
    """Runs to the end without interruption and returns the seconds of every phase."""
    processes, since = start(workdir, folder), time.monotonic()
    lengths: dict[str, float] = {}
    for phase, following in itertools.pairwise([*PHASES, "end"]):
        wait_for(following, workdir, processes)
        lengths[phase], since = time.monotonic() - since, time.monotonic()
    assert [process.wait() for process in processes] == [0, 0]
    return lengths


def run_and_stop(
    workdir: pathlib.Path, folder: str, lengths: dict[str, float], moments: random.Random
) -> bool | None:
    """Starts and stops a run once.

    Returns:
      True if the stop was clean; None if the run ended before the signal.
    """
    target_phase, fraction = moments.choice(PHASES), moments.random()
    targets = moments.choice([[0], [1], [0, 1]])
    processes = start(workdir, folder)
    wait_for(target_phase, workdir, processes)
    delay = fraction * lengths[target_phase]
    time.sleep(delay)
    if any(process.poll() is not None for process in processes):
        finish(processes, folder)
        print("the run ended before the signal", flush=True)
        return None
    phase = current_phase(workdir, processes)
    for target in targets:
        processes[target].send_signal(signal.SIGTERM)
    since = time.monotonic()
    outputs = finish(processes, folder)
    seconds = time.monotonic() - since
    codes = [process.returncode for process in processes]
    messages = {m.group(1) for o in outputs for m in [STOP_MESSAGE.search(o)] if m}
    is_clean = set(codes) == {75} and len(messages) == 1
    print(
        f"{phase} ({target_phase} + {delay:.1f} s), to {targets}: codes {codes}, "
        f"{' / '.join(sorted(messages)) or 'no message'}, in {seconds:.1f} s"
        f"{'' if is_clean else '  NOT CLEAN'}",
        flush=True,
    )
    if not is_clean:
        print("\n".join(output[-2000:] for output in outputs), flush=True)
    return is_clean


def current_phase(workdir: pathlib.Path, processes: list[subprocess.Popen]) -> str:
    """Returns the phase of process 0 by its heartbeat."""
    beat = heartbeat.read(workdir, 0)
    if beat.get("pid") != processes[0].pid:
        return PHASES[0]
    return "train" if beat["phase"] == "save" else beat["phase"]


def wait_for(phase: str, workdir: pathlib.Path, processes: list[subprocess.Popen]) -> None:
    """Waits until a phase starts or a process ends."""
    order = [*PHASES, "end"]
    while order.index(current_phase(workdir, processes)) < order.index(phase):
        if any(process.poll() is not None for process in processes):
            return
        time.sleep(0.02)


def start(workdir: pathlib.Path, folder: str) -> list[subprocess.Popen]:
    """Starts both processes with the public command."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    fields = FIELDS | {"train.steps": FLAGS.steps}
    command = [sys.executable, "-m", "ssl_jax.train", "--config=configs/simclr.py:digits"]
    command += [f"--config.{name}={value}" for name, value in fields.items()]
    # A process waits this long for one that was stopped before both connected.
    command += ["--start_timeout=20"]
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "1",
        "JAX_COMPILATION_CACHE_DIR": str(pathlib.Path(folder, "compiled")),
        "SSL_JAX_COORDINATOR": address,
        "SSL_JAX_PROCESSES": "2",
    }
    return [
        subprocess.Popen(
            [*command, f"--workdir={workdir}"],
            cwd=ROOT,
            env=environment | {"SSL_JAX_PROCESS": str(number)},
            stdout=(log := pathlib.Path(folder, f"{number}.log").open("w")),
            stderr=log,
        )
        for number in range(2)
    ]


def finish(processes: list[subprocess.Popen], folder: str) -> list[str]:
    """Waits until both processes end and returns their output."""
    for process in processes:
        process.wait(timeout=300)
    return [pathlib.Path(folder, f"{number}.log").read_text() for number in range(2)]


def difference(reference: pathlib.Path, workdir: pathlib.Path) -> str:
    """Describes how the last checkpoint and the log of two runs differ."""
    import jax
    import numpy as np

    from ssl_jax.rundir.checkpoint import Checkpoints

    latest: list[Any] = []
    for path in (reference, workdir):
        with Checkpoints(path / "checkpoints") as checkpoints:
            latest.append(checkpoints.read_latest(lambda state: state))
    trees = [jax.tree.leaves(tree) for tree, _, _ in latest]
    equal = [np.array_equal(a, b) for a, b in zip(*trees, strict=True)]
    logs = [(path / "metrics.jsonl").read_text().splitlines() for path in (reference, workdir)]
    rows = [[(r["step"], r["batch_hash"], r["loss"]) for r in map(json.loads, log)] for log in logs]
    steps = [step for _, step, _ in latest]
    return (
        f"last checkpoints, steps {steps}: {sum(equal)} of {len(equal)} arrays bit for bit equal; "
        f"batches and losses of {len(rows[0])} steps {'equal' if rows[0] == rows[1] else 'DIFFER'}"
    )


if __name__ == "__main__":
    flags.DEFINE_integer("signals", 20, "Number of stops.")
    flags.DEFINE_integer("steps", 100, "Steps of the run.")
    flags.DEFINE_integer("seed", 0, "Seed of the random moments; 0 draws a seed.")
    app.run(main)
