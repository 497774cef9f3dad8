"""SIGKILL at random moments: no saved step is lost, and the result is that of an undisturbed run.

    python -m benchmarks.kill_storm --kills=100

Trains SimCLR on digits with the public command, saves every step, and kills the process at a random
moment of a random phase. After each kill, the newest intact step must not be older than before, and
the next start must resume at exactly this step. Checkpoint and log of every completed run are
compared with those of an uninterrupted run. Exits with code 1 if anything differs.
"""

import os
import pathlib
import random
import re
import subprocess
import sys
import tempfile
import time
from typing import Any

from absl import app, flags, logging

from benchmarks.preempt import FIELDS, ROOT, difference
from ssl_jax.jobs import heartbeat
from ssl_jax.rundir import manifest, workdir

FLAGS = flags.FLAGS
# Most kills happen in training: with a save after every step, most of them interrupt a save.
PHASES = ("start", "train", "train", "train", "finish")


def main(_: Any) -> None:
    """Runs the benchmark; see the module's docstring."""
    logging.set_verbosity(logging.ERROR)
    seed = FLAGS.seed or random.SystemRandom().randrange(10**6)
    print(f"seed {seed}", flush=True)
    moments = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        start(folder / "reference").wait()
        lengths = heartbeat.read(folder / "reference", 0)["phases"]
        print("uninterrupted run:", ", ".join(f"{p} {s:.1f} s" for p, s in lengths.items()))
        lengths["train"] += lengths.pop("save")
        failures = kills = runs = 0
        while kills < FLAGS.kills or (folder / f"killed{runs}").exists():
            run = folder / f"killed{runs}"
            before = newest_intact(run)
            process = start(run)
            if kills < FLAGS.kills:
                wait_and_kill(process, run, moments.choice(PHASES), moments.random(), lengths)
            killed = process.wait() != 0
            kills += killed
            problem = check(run, before, process.returncode)
            failures += bool(problem)
            step = newest_intact(run)
            print(f"{kills:4} code {process.returncode}: step {before} -> {step} {problem}")
            if not killed:
                result = difference(folder / "reference", run)
                failures += "DIFFER" in result or not re.search(r"(\d+) of \1 arrays", result)
                print(f"     run {runs} completed: {result}", flush=True)
                runs += 1
    print(f"{kills} kills, {runs} completed runs, {failures} failures")
    sys.exit(failures > 0)


def start(run: pathlib.Path) -> subprocess.Popen:
    """Starts the public command; its output goes to RUN.log."""
    fields = FIELDS | {"train.steps": FLAGS.steps, "train.checkpoint_every": 1}
    command = [sys.executable, "-m", "ssl_jax.train", "--config=configs/simclr.py:digits"]
    command += [f"--config.{name}={value}" for name, value in fields.items()]
    cache = {"JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": str(run.parent / "compiled")}
    with run.with_suffix(".log").open("w") as log:
        return subprocess.Popen(
            [*command, f"--workdir={run}"],
            cwd=ROOT,
            env=os.environ | cache,
            stdout=log,
            stderr=log,
        )


def wait_and_kill(
    process: subprocess.Popen,
    run: pathlib.Path,
    phase: str,
    fraction: float,
    lengths: dict[str, float],
) -> None:
    """Kills the process after `fraction` of a phase's length since the phase began."""
    names = ("start", "train", "save", "finish", "end")
    while process.poll() is None:
        beat = heartbeat.read(run, 0)
        if beat.get("pid") == process.pid and names.index(beat["phase"]) >= names.index(phase):
            break
        time.sleep(0.02)
    time.sleep(fraction * lengths[phase])
    process.kill()


def newest_intact(run: pathlib.Path) -> int:
    """Returns the newest step whose files match its manifest; 0 if there is none."""
    return manifest.newest_intact(workdir.absolute(run / "checkpoints"), repair=False) or 0


def check(run: pathlib.Path, before: int, code: int) -> str:
    """Returns what is wrong after an attempt; "" if nothing is."""
    text = run.with_suffix(".log").read_text()
    resumed = re.search(r"resumed at step (\d+)", text)
    if code not in (0, -9):
        return f"WRONG: exit code {code}: {text[-500:]}"
    if resumed and int(resumed[1]) != before:
        return f"WRONG: resumed at step {resumed[1]}"
    if newest_intact(run) < before:
        return f"WRONG: step {before} is lost"
    return ""


if __name__ == "__main__":
    flags.DEFINE_integer("kills", 100, "Number of kills.")
    flags.DEFINE_integer("steps", 30, "Steps of the run.")
    flags.DEFINE_integer("seed", 0, "Seed of the random moments; 0 draws a seed.")
    app.run(main)
