"""Jobs that run the cells of a study on a cluster, from the templates in launch/."""

import math
import pathlib
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence

from ssl_jax.errors import MISSING_INPUT, USAGE, Fault
from ssl_jax.rundir import workdir
from ssl_jax.study import folder
from ssl_jax.study.cells import Cell
from ssl_jax.study.folder import Study

ROOT = pathlib.Path(__file__).resolve().parents[2]
TEMPLATES = {"gke": "gke_jobset.yaml", "skypilot": "skypilot.yaml"}
SUBMIT = {"gke": "kubectl create -f", "skypilot": "sky jobs launch --yes --detach-run"}
Values = dict[int, dict[str, str]]  # {devices, 0 for all: {NAME: value}}


def write(study: Study, cells: Sequence[Cell], kind: str, values: Sequence[str], at: str) -> str:
    """Writes jobs/ and returns the commands that submit what is not done.

    Args:
      kind: "slurm": one array for every number of devices. "gke", "skypilot": a file for every
        cell, filled in by launch/render.sh.
      values: NAME=VALUE of the template, or DEVICES:NAME=VALUE of the cells on so many devices.
      at: the study's folder as the jobs see it; "" where that is its path here.

    Raises:
      Fault: a value is missing, or is none of the template's.
    """
    parsed = parse(values)
    numbered = [
        (i, cell)
        for i, cell in enumerate(study.cells)
        if cell in cells
        and not cell.same_as
        and folder.status(study, cell) not in ("done", "diverged")
    ]
    jobs = study.path / "jobs"
    jobs.mkdir(exist_ok=True)
    for old in [*jobs.glob("*.yaml"), *jobs.glob("*.sh")]:
        old.unlink()
    if kind == "slurm":
        lines = list(_arrays(study, numbered, parsed, at))
    else:
        lines = list(_files(study, numbered, kind, parsed, at))
    if not lines:
        return "no cell is left to run"
    script = jobs / "submit.sh"
    start = f"#!/usr/bin/env bash\nset -euo pipefail\ncd {shlex.quote(str(ROOT))}\n"
    text = start + "\n".join(lines) + "\n"
    workdir.write_text(script, text)
    told = (
        f"jobs of {len(numbered)} cells; submit them by: bash {shlex.quote(str(script))}\n" + text
    )
    if at and at != str(study.path):
        told = f"first copy {study.path / folder.FILE} to {at}, where the jobs look for it\n" + told
    return told


def parse(values: Sequence[str]) -> Values:
    """NAME=VALUE and DEVICES:NAME=VALUE, by devices."""
    found: Values = {0: {}}
    for word in values:
        match = re.fullmatch(r"(?:(\d+):)?([A-Z_]+)=(.+)", word)
        if not match:
            raise Fault(f"--values: {word!r}: write NAME=VALUE or DEVICES:NAME=VALUE", USAGE)
        devices, name, value = match.groups()
        found.setdefault(int(devices or 0), {})[name] = value
    return found


def _command(study: Study, index: str, at: str, python: str) -> list[str]:
    """What a job runs: the training of one cell."""
    return [python, "-m", "ssl_jax.study", f"--workdir={at or study.path}", f"--cell={index}"]


def _arrays(
    study: Study, numbered: Sequence[tuple[int, Cell]], values: Values, at: str
) -> Iterator[str]:
    command = shlex.join(_command(study, "slurm", at, sys.executable))
    for devices in sorted({cell.devices for _, cell in numbered}):
        tasks = ranges([i for i, cell in numbered if cell.devices == devices])
        words = ["sbatch", *_resources(devices, values), f"--array={tasks}", '"$@"']
        yield f"{' '.join(words)} launch/slurm.sbatch {command}"


def _resources(devices: int, values: Values) -> list[str]:
    """Options of sbatch that give a cell its GPUs; none where the grid does not say how many."""
    if not devices:
        return []
    text = {**values[0], **values.get(devices, {})}.get("GPUS_PER_NODE", "")
    if not text.isdigit() or not int(text):
        raise Fault("--jobs=slurm with devices: give --values=GPUS_PER_NODE=8, or so", USAGE)
    each = min(devices, int(text))
    if devices % each:
        raise Fault(f"--jobs=slurm: {devices} devices are no whole nodes of {each} GPUs", USAGE)
    nodes = math.ceil(devices / each)
    return [f"--nodes={nodes}", f"--ntasks-per-node={each}", f"--gres=gpu:{each}"]


def ranges(numbers: Sequence[int]) -> str:
    """ "0-3,7" of rising numbers."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(f"{a}-{b}" if a < b else str(a) for a, b in runs)


def _files(
    study: Study, numbered: Sequence[tuple[int, Cell]], kind: str, values: Values, at: str
) -> Iterator[str]:
    for i, cell in numbered:
        name = f"{_slug(study.path.name)}-{i}"
        given = {"NAME": name, **values[0], **values.get(cell.devices, {})}
        text = _render(TEMPLATES[kind], given, _command(study, str(i), at, "python"))
        file = study.path / "jobs" / f"{i}.yaml"
        workdir.write_text(file, f"# {cell.name}\n{text}")
        yield f"{SUBMIT[kind]} {shlex.quote(str(file))}"


def _slug(name: str) -> str:
    """What Kubernetes takes as a name: letters, digits and -, the first a letter, not too long."""
    text = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:30]
    return text if text[:1].isalpha() else f"study-{text}".rstrip("-")


def _render(template: str, values: Mapping[str, str], command: Sequence[str]) -> str:
    script = ROOT / "launch" / "render.sh"
    if not script.is_file():
        raise Fault(f"{script}: not there; jobs are written from the checkout", MISSING_INPUT)
    pairs = [f"{name}={value}" for name, value in values.items()]
    line = [str(script), "--print", template, *pairs, "--", *command]
    found = subprocess.run(line, capture_output=True, text=True)
    if found.returncode:
        raise Fault(f"--values: {found.stderr.strip()}", USAGE)
    return found.stdout
