"""Compiles a step in a subprocess and keeps the result in a folder.

A subprocess is needed for three reasons: libtpu serves one program per process, it may end the
process, and it reads environment variables before JAX is imported.
"""

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import signal
import subprocess
from typing import Any

from ml_collections import ConfigDict

from ssl_jax import config as configuration
from ssl_jax.errors import IO_ERROR, OUT_OF_MEMORY, Fault
from ssl_jax.jobs import json_files
from ssl_jax.jobs.python_command import module_command
from ssl_jax.plan.dataset_size import DatasetSize
from ssl_jax.plan.program import CompiledStep, MeasuredStep, program_from_json
from ssl_jax.plan.topologies import Topology
from ssl_jax.rundir import workdir

PACKAGE = pathlib.Path(__file__).resolve().parent.parent
# Source files that define the step's program and the numbers that are read from it. A change in one
# of them makes a new cache key. A test compares them with the modules that the worker imports.
SOURCES = (
    *("build.py", "components.py", "inputs", "losses", "methods", "models", "optim", "parallel"),
    *("pretrained", "training", "weights"),
    *("plan/chips.py", "plan/collectives.py", "plan/compile_step.py", "plan/compile_worker.py"),
    *("plan/cost_analysis.py", "plan/device_rates.py", "plan/hlo.py", "plan/measure_step.py"),
    *("plan/memory.py", "plan/memory_traffic.py", "plan/program.py", "plan/repeated_work.py"),
    "plan/topologies.py",
)
LIBRARIES = ("jax", "jaxlib", "flax", "optax", "libtpu")
# Sections and fields of the config that do not change the program.
FREE_SECTIONS = ("eval",)
FREE_FIELDS = (
    *("data.source", "data.dir", "data.split", "data.eval_split", "data.label"),
    *("data.on_bad_image", "data.max_bad", "train.epochs", "train.steps", "train.seed"),
    *("train.log_every", "train.checkpoint_every", "train.keep", "optim.lr"),
    "optim.warmup_epochs",
)


def compile_cached(
    config: ConfigDict,
    topology: Topology,
    size: DatasetSize,
    folder: pathlib.Path,
    *,
    check: bool = False,
) -> CompiledStep:
    """Returns the compiled step, from `folder` if the same step was compiled before.

    Args:
      size: size of the training set.
      check: also run the step on this machine; always compiles anew.

    Raises:
      Fault: the step cannot be compiled for the topology; the message is the compiler's.
    """
    key = cache_key(config, topology, size)
    if not check and (known := load(folder, key)):
        return known
    task = {
        "key": key,
        "config": config.to_dict(),
        "topology": topology.name,
        "slices": topology.slices,
        "images": size.images,
        "classes": size.classes,
        "check": check,
    }
    workdir.write_json(folder / "task.json", task)
    answer = run_worker(folder, topology, check=check)
    (folder / "task.json").unlink()
    step = _from_json(answer)
    workdir.write_json(folder / "program.json", answer | {"key": key, "checked": None})
    return step


def load(folder: pathlib.Path, key: str) -> CompiledStep | None:
    """Returns the folder's compiled step if it has this key, else None."""
    content = json_files.read_or_ignore(folder / "program.json")
    if content.get("key") != key:
        return None
    try:
        return _from_json(content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        json_files.log_ignored(folder / "program.json", error)
        return None


def _from_json(content: dict[str, Any]) -> CompiledStep:
    checked = MeasuredStep(**content["checked"]) if content["checked"] else None
    program = program_from_json(content["program"])
    return CompiledStep(program, content["state_bytes"], content["latency"], checked)


def run_worker(folder: pathlib.Path, topology: Topology, *, check: bool) -> Any:
    """Runs `compile_worker` on the folder's task.json and returns its answer.

    Raises:
      Fault: the worker reports one, or it dies.
    """
    answer = folder / "answer.json"
    answer.unlink(missing_ok=True)
    command = [*module_command("ssl_jax.plan.compile_worker"), str(folder)]
    variables = environment(topology, check=check)
    result = subprocess.run(command, env=variables, capture_output=True, text=True)
    if not answer.exists():
        if result.returncode == -signal.SIGKILL:
            message = "the compiler was killed: this machine does not have enough memory for it"
            raise Fault(message, OUT_OF_MEMORY)
        last_lines = "\n".join(result.stderr.strip().splitlines()[-15:])
        raise Fault(f"compiling for {topology.name} failed:\n{last_lines}", IO_ERROR)
    content = json.loads(answer.read_text())
    answer.unlink()
    if "fault" in content:
        raise Fault(content["fault"], content["code"])
    return content


def environment(topology: Topology, *, check: bool = False) -> dict[str, str]:
    """Returns the environment variables of a process that compiles for a topology.

    Args:
      check: True if the process also runs the step on this machine.
    """
    paths = [str(PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    variables = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    variables.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # libtpu queries metadata servers for minutes and takes a lock that another process may hold.
    variables |= {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
    # libtpu ends the process if XLA_FLAGS contains a flag that only CPUs or GPUs know.
    flags = variables.pop("XLA_FLAGS", "")
    if topology.chip.kind == "cpu":
        others = [flag for flag in flags.split() if "device_count" not in flag]
        variables |= {"XLA_FLAGS": " ".join(others), "JAX_NUM_CPU_DEVICES": str(topology.devices)}
    runs_on_gpu = check and topology.chip.kind == "gpu"
    return variables | {"JAX_PLATFORMS": "cuda,cpu" if runs_on_gpu else "cpu"}


def cache_key(config: ConfigDict, topology: Topology, size: DatasetSize) -> str:
    """Returns a hash of everything that determines a step's program."""
    fields = configuration.flatten(json.loads(configuration.to_json(config)))
    free = [name for name in fields if name in FREE_FIELDS or name.split(".")[0] in FREE_SECTIONS]
    content = {
        "config": {name: value for name, value in fields.items() if name not in free},
        "topology": topology,
        "counts": [size.images, size.classes],
        "versions": [_version(name) for name in LIBRARIES],
        "sources": _source_hash(),
        "outside": [_module_hash(name) for name in configuration.external_modules(config)],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def _module_hash(module: str) -> str:
    """Returns the hash of the file of a module outside the package; "" for a built-in module."""
    spec = importlib.util.find_spec(module)
    file = pathlib.Path(spec.origin or "") if spec else pathlib.Path()
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""


def _version(library: str) -> str:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _source_hash() -> str:
    digest = hashlib.sha256()
    for name in SOURCES:
        path = PACKAGE / name
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(file.read_bytes())
    return digest.hexdigest()
