"""Flips single bits in the files of a run and of its exports, and counts what the readers do.

    python -m benchmarks.bit_flips --flips=1000

Trains and exports once with the public commands. Then one process flips a random bit of a random
file, reads, and restores the file. A third of the flips is in the checkpoint, in the exports, and
in the other files of the workdir each. The outcomes:

* detected: the reader refuses the file by name, or falls back and says so;
* harmless: weights, step and everything else that is read equal the original;
* log: the weights are the same, but a number of metrics.jsonl, eval/*.json, metadata.json or a free
  field of config.json changes. These files have no checksum.
* WRONG: other weights, or an error that is not a Fault. Exits with code 1 if there is one.
"""

import collections
import contextlib
import functools
import os
import pathlib
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from absl import app, flags, logging

from benchmarks.preempt import FIELDS, ROOT
from ssl_jax import config as configuration
from ssl_jax import load_backbone
from ssl_jax.errors import Fault
from ssl_jax.report.run_files import read_run
from ssl_jax.rundir import metadata
from ssl_jax.rundir.checkpoint import Checkpoints
from ssl_jax.rundir.metrics import MetricWriter
from ssl_jax.rundir.workdir import Workdir, absolute
from ssl_jax.training import command

FLAGS = flags.FLAGS
FORMATS = ("npz", "torch", "orbax")  # formats that hold weights and not a program
Result = tuple[list, list]  # the weights; everything else that was read


def main(_: Any) -> None:
    """Runs the benchmark; see the module's docstring."""
    logging.set_verbosity(logging.ERROR)
    seed = FLAGS.seed or random.SystemRandom().randrange(10**6)
    print(f"seed {seed}", flush=True)
    places = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        run = pathlib.Path(name, "run")
        make_run(run)
        groups = files_by_group(run)
        originals = {group: READERS[group](run) for group in groups}
        counts: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
        for number in range(FLAGS.flips):
            group = list(READERS)[number % len(READERS)]
            path = places.choice(groups[group])  # any file first: small files are drawn, too
            position, bit = places.randrange(path.stat().st_size), places.randrange(8)
            with flipped(path, position, bit):
                found, why = outcome(functools.partial(READERS[group], run), originals[group])
            counts[group][found] += 1
            if found == "WRONG":
                print(f"WRONG: bit {bit} of byte {position} of {path.relative_to(run)}: {why}")
    for group, count in counts.items():
        print(f"{group:12}", ", ".join(f"{n} {found}" for found, n in sorted(count.items())))
    wrong = sum(count["WRONG"] for count in counts.values())
    print(f"{FLAGS.flips} flips, {wrong} silently wrong")
    sys.exit(wrong > 0)


def make_run(run: pathlib.Path) -> None:
    """Trains for six steps and exports the encoder, with the public commands."""
    fields = FIELDS | {"data.eval_split": "test", "train.steps": 6, "train.keep": 1}
    flags_ = [f"--config.{name}={value}" for name, value in fields.items()]
    for arguments in (
        ["ssl_jax.train", "--config=configs/simclr.py:digits", *flags_],
        ["ssl_jax.export", f"--format={','.join(FORMATS)}"],
    ):
        subprocess.run(
            [sys.executable, "-m", *arguments, f"--workdir={run}"],
            cwd=ROOT,
            env=os.environ | {"JAX_PLATFORMS": "cpu"},
            stdout=subprocess.DEVNULL,
            check=True,
        )


def files_by_group(run: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """Returns the files of each group of `READERS` that are not empty."""
    groups = collections.defaultdict(list)
    for path in sorted(run.rglob("*")):
        if path.is_file() and path.stat().st_size:
            top = path.relative_to(run).parts[0]
            groups[top if top in READERS else "side files"].append(path)
    return groups


@contextlib.contextmanager
def flipped(path: pathlib.Path, position: int, bit: int) -> Iterator[None]:
    """A context in which one bit of a file is flipped."""
    content = path.read_bytes()
    changed = bytearray(content)
    changed[position] ^= 1 << bit
    path.write_bytes(changed)
    try:
        yield
    finally:
        path.write_bytes(content)


def outcome(read: Callable[[], Result], original: Result) -> tuple[str, str]:
    """Reads and returns (outcome, reason)."""
    try:
        weights, others = read()
    except Fault as fault:
        return "detected", str(fault)
    except Exception as error:
        return "WRONG", repr(error)
    if weights != original[0]:
        return "WRONG", "other weights"
    return ("harmless", "") if others == original[1] else ("log", "")


def read_checkpoint(run: pathlib.Path) -> Result:
    """Reads the whole newest checkpoint, as a resume does."""
    with Checkpoints(run / "checkpoints") as checkpoints:
        return exact(checkpoints.read_latest(lambda state: state)), []


def read_exports(run: pathlib.Path) -> Result:
    """Reads the exports as every verb does; sizes and classes count as weights."""
    backbones = [load_backbone(run / "export" / name) for name in FORMATS]
    weights = [(b.weights, b.size, b.crop, b.channels, b.classes) for b in backbones]
    return exact(weights), [b.origin for b in backbones]


def read_all(run: pathlib.Path) -> Result:
    """Reads the files of a workdir as a resume, an evaluation and a report do."""
    config = configuration.load(run)
    command.check_config(config, Workdir(absolute(run)), [])
    with Checkpoints(run / "checkpoints", config_hash=metadata.config_hash(config)) as checkpoints:
        latest = checkpoints.read_latest(lambda state: state["params"])
    assert latest is not None
    with MetricWriter(run, resume_step=latest[1], tensorboard=False):
        pass
    return exact(latest), exact(tuple(read_run(run)._replace(workdir=run)))


def exact(tree: Any) -> list[tuple[str, Any]]:
    """Returns names and values of a tree's leaves, equal only for the same bits."""
    return [
        (jax.tree_util.keystr(path), x.tobytes() if isinstance(x, np.ndarray) else repr(x))
        for path, x in jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda x: x is None)
    ]


READERS: dict[str, Callable[[pathlib.Path], Result]] = {
    "checkpoints": read_checkpoint,
    "export": read_exports,
    "side files": read_all,
}

if __name__ == "__main__":
    flags.DEFINE_integer("flips", 1000, "Number of flipped bits.")
    flags.DEFINE_integer("seed", 0, "Seed of the random places; 0 draws a seed.")
    app.run(main)
