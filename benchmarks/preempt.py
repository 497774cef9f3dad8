"""Many SIGTERMs at random moments over two processes: is every stop clean, the end the same?

    python -m benchmarks.preempt --signals=20

Trains SimCLR on digits through the public command in two processes over gloo, and stops them: one
or both get SIGTERM in a random phase (before all have met, start and compilation, training,
evaluation and report), at a random moment of it, and the same command is run again. Whatever run
comes to its end is compared, checkpoint and log, with one that nothing happened to. A stop is clean
when both processes end with 75 and say the same step, or that there is nothing new to save.
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
PHASES = ("meeting", "start", "train", "finish")  # the latter as heartbeats name them
FIELDS = {
    "data.eval_split": "",
    "model.width": 0.125,
    "method.hidden_dim": 16,
    "method.output_dim": 8,
    "train.batch_size": 64,
    "train.log_every": 1,
    "train.checkpoint_every": 25,
}
SAID = re.compile(r"ssl_jax: SIG\w+(?: on process \d)?: (.*?); run the same command again")


def main(_: Any) -> None:
    """The command: see the module's docstring."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    seed = FLAGS.seed or random.SystemRandom().randrange(10**6)
    print(f"seed {seed}", flush=True)
    moments = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        whole = pathlib.Path(folder, "whole")
        lengths = unbroken(whole, folder)
        print("unbroken run:", ", ".join(f"{n} {s:.1f} s" for n, s in lengths.items()), flush=True)
        clean = sent = runs = 0
        while sent < FLAGS.signals:
            broken = pathlib.Path(folder, f"broken{runs}")
            print(f"{sent + 1:3}: ", end="")
            good = life(broken, folder, lengths, moments)
            if good is not None:
                sent, clean = sent + 1, clean + good
            if progress.saved_step(broken) == FLAGS.steps:
                print(f"     run {runs} is whole: {difference(whole, broken)}", flush=True)
                runs += 1
        broken = pathlib.Path(folder, f"broken{runs}")
        codes = [child.wait() for child in start(broken, folder)]
        print(f"last life: codes {codes}; {difference(whole, broken)}")
        print(f"{clean} of {sent} stops clean")


def unbroken(path: pathlib.Path, folder: str) -> dict[str, float]:
    """Runs to the end; the seconds of every phase."""
    children, at = start(path, folder), time.monotonic()
    lengths: dict[str, float] = {}
    for name, after in itertools.pairwise([*PHASES, "end"]):
        wait_for(after, path, children)
        lengths[name], at = time.monotonic() - at, time.monotonic()
    assert [child.wait() for child in children] == [0, 0]
    return lengths


def life(
    path: pathlib.Path, folder: str, lengths: dict[str, float], moments: random.Random
) -> bool | None:
    """One start and its stop; whether it was clean, None if the end came before the signal."""
    aim, share = moments.choice(PHASES), moments.random()
    targets = moments.choice([[0], [1], [0, 1]])
    children = start(path, folder)
    wait_for(aim, path, children)
    time.sleep(share * lengths[aim])
    if any(child.poll() is not None for child in children):
        finish(children, folder)
        print("it had ended before the signal", flush=True)
        return None
    phase = phase_of(path, children)
    for target in targets:
        children[target].send_signal(signal.SIGTERM)
    at = time.monotonic()
    outputs = finish(children, folder)
    seconds = time.monotonic() - at
    codes = [child.returncode for child in children]
    said = {m.group(1) for o in outputs for m in [SAID.search(o)] if m}
    good = set(codes) == {75} and len(said) == 1
    print(
        f"{phase} ({aim} + {share * lengths[aim]:.1f} s), to {targets}: codes {codes}, "
        f"{' / '.join(sorted(said)) or 'nothing said'}, in {seconds:.1f} s"
        f"{'' if good else '  NOT CLEAN'}",
        flush=True,
    )
    if not good:
        print("\n".join(output[-2000:] for output in outputs), flush=True)
    return good


def phase_of(path: pathlib.Path, children: list[subprocess.Popen]) -> str:
    """What process 0 does, by its own heartbeat."""
    beat = heartbeat.read(path, 0)
    if beat.get("pid") != children[0].pid:
        return PHASES[0]
    return "train" if beat["phase"] == "save" else beat["phase"]


def wait_for(phase: str, path: pathlib.Path, children: list[subprocess.Popen]) -> None:
    """Returns once a phase has begun, or a process has ended."""
    order = [*PHASES, "end"]
    while order.index(phase_of(path, children)) < order.index(phase):
        if any(child.poll() is not None for child in children):
            return
        time.sleep(0.02)


def start(path: pathlib.Path, folder: str) -> list[subprocess.Popen]:
    """Both processes, by the public command."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    fields = FIELDS | {"train.steps": FLAGS.steps}
    command = [sys.executable, "-m", "ssl_jax.train", "--config=configs/simclr.py:digits"]
    command += [f"--config.{name}={value}" for name, value in fields.items()]
    command += ["--start_timeout=20"]  # who was stopped before they met is waited for so long
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "1",
        "JAX_COMPILATION_CACHE_DIR": str(pathlib.Path(folder, "compiled")),
        "SSL_JAX_COORDINATOR": address,
        "SSL_JAX_PROCESSES": "2",
    }
    return [
        subprocess.Popen(
            [*command, f"--workdir={path}"],
            cwd=ROOT,
            env=environment | {"SSL_JAX_PROCESS": str(number)},
            stdout=(log := pathlib.Path(folder, f"{number}.log").open("w")),
            stderr=log,
        )
        for number in range(2)
    ]


def finish(children: list[subprocess.Popen], folder: str) -> list[str]:
    """What both printed, once they have ended."""
    for child in children:
        child.wait(timeout=300)
    return [pathlib.Path(folder, f"{number}.log").read_text() for number in range(2)]


def difference(whole: pathlib.Path, broken: pathlib.Path) -> str:
    """In words, how two runs differ."""
    import jax
    import numpy as np

    from ssl_jax.rundir.checkpoint import Checkpoints

    found: list[Any] = []
    for path in (whole, broken):
        with Checkpoints(path / "checkpoints") as checkpoints:
            found.append(checkpoints.read_latest(lambda state: state))
    trees = [jax.tree.leaves(tree) for tree, _, _ in found]
    equal = [np.array_equal(a, b) for a, b in zip(*trees, strict=True)]
    logs = [(path / "metrics.jsonl").read_text().splitlines() for path in (whole, broken)]
    rows = [[(r["step"], r["batch_hash"], r["loss"]) for r in map(json.loads, log)] for log in logs]
    steps = [step for _, step, _ in found]
    return (
        f"last checkpoints, steps {steps}: {sum(equal)} of {len(equal)} arrays bit for bit equal; "
        f"batches and losses of {len(rows[0])} steps {'equal' if rows[0] == rows[1] else 'DIFFER'}"
    )


if __name__ == "__main__":
    flags.DEFINE_integer("signals", 20, "How many.")
    flags.DEFINE_integer("steps", 100, "Of the run.")
    flags.DEFINE_integer("seed", 0, "Of the moments; 0 draws one.")
    app.run(main)
