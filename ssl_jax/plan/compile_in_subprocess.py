"""Compiles a step in a process of its own, once: the result stays in a folder.

A process of its own, since libtpu serves one program a process, may end it, and needs variables in
the environment before JAX is imported.
"""

import hashlib
import importlib.metadata
import json
import os
import pathlib
import signal
import subprocess
import sys
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from ssl_jax import config as configuration
from ssl_jax.errors import IO_ERROR, OUT_OF_MEMORY, Fault
from ssl_jax.plan.counts import Counts
from ssl_jax.plan.dataset_size import Counts
from ssl_jax.plan.facts import Program, Topology
from ssl_jax.plan.program import Program, Topology, from_json
from ssl_jax.rundir import workdir

PACKAGE = pathlib.Path(__file__).resolve().parent.parent
# What a step's program is written in: a change of these is another program.
SOURCES = (
    *("build.py", "components.py", "inputs", "losses", "methods", "models", "optim", "parallel"),
    *("training", "plan/chips.py", "plan/collectives.py", "plan/compile_step.py"),
    *("plan/cost_analysis.py", "plan/hlo.py", "plan/program.py", "plan/repeated_work.py"),
    "plan/topologies.py",
)
LIBRARIES = ("jax", "jaxlib", "flax", "optax", "libtpu")
# Sections and fields that leave the program's work as it is.
FREE_SECTIONS = ("data", "eval")
FREE = ("train.epochs", "train.steps", "train.seed", "train.log_every", "train.checkpoint_every",
        "train.keep", "optim.lr", "optim.warmup_epochs")  # fmt: skip


class Checked(NamedTuple):
    """What a step took where it was run.

    Attributes:
      step: seconds, the median of `steps`; `fastest` and `slowest` of them.
      memory: bytes of one device at most; of a CPU, what the process grew by, divided.
    """

    step: float
    fastest: float
    slowest: float
    steps: int
    memory: int


class Compiled(NamedTuple):
    """A step's program.

    Attributes:
      state_bytes: of a checkpoint.
      latency: seconds of a small message between devices, where it was measured.
      checked: what the step took here, where it was asked for.
    """

    program: Program
    state_bytes: int
    latency: float | None
    checked: Checked | None


def get(
    config: ConfigDict,
    topology: Topology,
    counts: Counts,
    folder: pathlib.Path,
    *,
    check: bool = False,
) -> Compiled:
    """The compiled step, from `folder` if the same was compiled before.

    Args:
      check: also run it here, now.

    Raises:
      Fault: the step cannot be compiled for the topology, as the compiler says.
    """
    known = key(config, topology, counts)
    if not check and (found := load(folder, known)):
        return found
    task = {
        "key": known,
        "config": config.to_dict(),
        "topology": topology.name,
        "slices": topology.slices,
        "images": counts.images,
        "classes": counts.classes,
        "check": check,
    }
    workdir.write_json(folder / "task.json", task)
    answer = in_child(folder, topology, check=check)
    (folder / "task.json").unlink()
    found = _compiled(answer)
    workdir.write_json(folder / "program.json", answer | {"key": known, "checked": None})
    return found


def load(folder: pathlib.Path, known: str) -> Compiled | None:
    """What the folder holds, if it is that of this key."""
    content = workdir.Workdir(workdir.absolute(folder)).read_json("program.json")
    return _compiled(content) if content and content["key"] == known else None


def _compiled(content: dict[str, Any]) -> Compiled:
    checked = Checked(**content["checked"]) if content["checked"] else None
    program = from_json(content["program"])
    return Compiled(program, content["state_bytes"], content["latency"], checked)


def in_child(folder: pathlib.Path, topology: Topology, *, check: bool) -> Any:
    """What `plan.compile_worker` writes into the folder's answer.json; its Fault is raised here."""
    answer = folder / "answer.json"
    answer.unlink(missing_ok=True)
    command = [sys.executable, "-m", "ssl_jax.plan.compile_worker", str(folder)]
    surroundings = environment(topology, check=check)
    result = subprocess.run(command, env=surroundings, capture_output=True, text=True)
    if not answer.exists():
        if result.returncode == -signal.SIGKILL:
            message = "the compiler was killed; this machine lacks memory for it"
            raise Fault(message, OUT_OF_MEMORY)
        last = "\n".join(result.stderr.strip().splitlines()[-15:])
        raise Fault(f"compiling for {topology.name} failed:\n{last}", IO_ERROR)
    content = json.loads(answer.read_text())
    answer.unlink()
    if "fault" in content:
        raise Fault(content["fault"], content["code"])
    return content


def environment(topology: Topology, *, check: bool = False) -> dict[str, str]:
    """Of a process that compiles for a topology: what libtpu and virtual devices need.

    Args:
      check: the step will also be run here.
    """
    paths = [str(PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    changed = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    changed.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # libtpu asks metadata servers for minutes, takes a lock that another process may hold, and
    # ends the process at a flag that is of CPUs or GPUs alone.
    changed |= {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
    flags = changed.pop("XLA_FLAGS", "")
    if topology.chip.kind == "cpu":
        kept = [flag for flag in flags.split() if "device_count" not in flag]
        changed |= {"XLA_FLAGS": " ".join(kept), "JAX_NUM_CPU_DEVICES": str(topology.devices)}
    run_here = check and topology.chip.kind == "gpu"
    return changed | {"JAX_PLATFORMS": "cuda,cpu" if run_here else "cpu"}


def key(config: ConfigDict, topology: Topology, counts: Counts) -> str:
    """Names all that decides about a step's program."""
    fields = configuration.flatten(json.loads(configuration.to_json(config)))
    free = [name for name in fields if name in FREE or name.split(".")[0] in FREE_SECTIONS]
    content = {
        "config": {name: value for name, value in fields.items() if name not in free},
        "topology": topology,
        "counts": [counts.images, counts.classes],
        "versions": [_version(name) for name in LIBRARIES],
        "sources": _sources(),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def _version(library: str) -> str:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _sources() -> str:
    found = hashlib.sha256()
    for name in SOURCES:
        path = PACKAGE / name
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            if file.exists():
                found.update(file.read_bytes())
    return found.hexdigest()
