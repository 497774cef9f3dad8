"""Jobs that run the cells of a study on a cluster, made from the templates in launch/."""

import math
import pathlib
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence

from ssl_jax.errors import MISSING_INPUT, USAGE, Fault
from ssl_jax.jobs import files
from ssl_jax.rundir import workdir
from ssl_jax.study import study_folder
from ssl_jax.study.cells import Cell
from ssl_jax.study.study_folder import Study

ROOT = pathlib.Path(__file__).resolve().parents[2]
TEMPLATES = {"gke": "gke_jobset.yaml", "skypilot": "skypilot.yaml"}
SUBMIT = {"gke": "kubectl create -f", "skypilot": "sky jobs launch --yes --detach-run"}
Values = dict[int, dict[str, str]]  # {number of devices, 0 for all cells: {NAME: value}}


def write(
    study: Study, cells: Sequence[Cell], kind: str, values: Sequence[str], job_path: str
) -> str:
    """Writes jobs/ and returns the commands that submit the cells that are not done.

    Args:
      study: study of the cells.
      cells: cells to run.
      kind: "slurm": one job array per number of devices. "gke", "skypilot": one file per cell,
        filled in by launch/render.sh.
      values: NAME=VALUE of the template, or DEVICES:NAME=VALUE for cells on so many devices.
      job_path: path of the study inside the jobs; "" if it is the same as on this machine.

    Raises:
      Fault: if a value is missing or unknown to the template.
    """
    parsed = parse_values(values)
    numbered = [
        (i, cell)
        for i, cell in enumerate(study.cells)
        if cell in cells
        and not cell.same_as
        and study_folder.status(study, cell) not in ("done", "diverged")
    ]
    jobs = files.inside(study.path, "jobs")
    jobs.mkdir(exist_ok=True)
    for old in [*jobs.glob("*.yaml"), *jobs.glob("*.sh")]:
        old.unlink()
    if not (ROOT / "launch").is_dir():
        message = f"no launch scripts in {ROOT}: write jobs from a checkout of ssl_jax"
        raise Fault(message, MISSING_INPUT)
    if kind == "slurm":
        lines = list(_slurm_arrays(study, numbered, parsed, job_path))
    else:
        lines = list(_job_files(study, numbered, kind, parsed, job_path))
    if not lines:
        return "no cell is left to run"
    script = jobs / "submit.sh"
    start = f"#!/usr/bin/env bash\nset -euo pipefail\ncd {shlex.quote(str(ROOT))}\n"
    text = start + "\n".join(lines) + "\n"
    workdir.write_text(script, text)
    summary = f"wrote jobs of {len(numbered)} cells; submit them: bash {shlex.quote(str(script))}\n"
    message = summary + text
    if job_path and job_path != str(study.path):
        file = study.path / study_folder.FILE
        message = f"first copy {file} to {job_path}, where the jobs read it\n{message}"
    return message


def parse_values(values: Sequence[str]) -> Values:
    """Parses NAME=VALUE and DEVICES:NAME=VALUE; raises Fault for other words."""
    parsed: Values = {0: {}}
    for word in values:
        match = re.fullmatch(r"(?:(\d+):)?([A-Z_]+)=(.+)", word)
        if not match:
            raise Fault(f"--values: {word!r}: write NAME=VALUE or DEVICES:NAME=VALUE", USAGE)
        devices, name, value = match.groups()
        parsed.setdefault(int(devices or 0), {})[name] = value
    return parsed


def _cell_command(study: Study, number: str, job_path: str, python: str) -> list[str]:
    """Returns the command of a job, which trains one cell."""
    path = job_path or study.path
    return [python, "-m", "ssl_jax.study", f"--workdir={path}", f"--cell={number}"]


def _slurm_arrays(
    study: Study, numbered: Sequence[tuple[int, Cell]], values: Values, job_path: str
) -> Iterator[str]:
    command = shlex.join(_cell_command(study, "slurm", job_path, sys.executable))
    for devices in sorted({cell.devices for _, cell in numbered}):
        tasks = array_ranges([i for i, cell in numbered if cell.devices == devices])
        words = ["sbatch", *_slurm_resources(devices, values), f"--array={tasks}", '"$@"']
        yield f"{' '.join(words)} launch/slurm.sbatch {command}"


def _slurm_resources(devices: int, values: Values) -> list[str]:
    """Returns the sbatch options for a cell's GPUs; [] if the grid does not set the devices."""
    if not devices:
        return []
    text = {**values[0], **values.get(devices, {})}.get("GPUS_PER_NODE", "")
    if not text.isdigit() or not int(text):
        raise Fault(
            "--jobs=slurm with devices: pass GPUs per node, e.g. --values=GPUS_PER_NODE=8", USAGE
        )
    per_node = min(devices, int(text))
    if devices % per_node:
        raise Fault(
            f"--jobs=slurm: {devices} devices do not fill whole nodes of {per_node} GPUs", USAGE
        )
    nodes = math.ceil(devices / per_node)
    return [f"--nodes={nodes}", f"--ntasks-per-node={per_node}", f"--gres=gpu:{per_node}"]


def array_ranges(numbers: Sequence[int]) -> str:
    """Formats rising numbers for sbatch --array, for example as "0-3,7"."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ",".join(f"{a}-{b}" if a < b else str(a) for a, b in ranges)


def _job_files(
    study: Study, numbered: Sequence[tuple[int, Cell]], kind: str, values: Values, job_path: str
) -> Iterator[str]:
    for i, cell in numbered:
        name = f"{_job_name(study.path.name)}-{i}"
        cell_values = {"NAME": name, **values[0], **values.get(cell.devices, {})}
        command = _cell_command(study, str(i), job_path, "python")
        text = _render(TEMPLATES[kind], cell_values, command)
        file = study.path / "jobs" / f"{i}.yaml"
        workdir.write_text(file, f"# {cell.name}\n{text}")
        yield f"{SUBMIT[kind]} {shlex.quote(str(file))}"


def _job_name(name: str) -> str:
    """Returns a short name that Kubernetes accepts: a letter, then letters, digits and "-"."""
    text = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:30]
    return text if text[:1].isalpha() else f"study-{text}".rstrip("-")


def _render(template: str, values: Mapping[str, str], command: Sequence[str]) -> str:
    script = ROOT / "launch" / "render.sh"
    pairs = [f"{name}={value}" for name, value in values.items()]
    line = [str(script), "--print", template, *pairs, "--", *command]
    rendered = subprocess.run(line, capture_output=True, text=True)
    if rendered.returncode:
        raise Fault(f"--values: {rendered.stderr.strip()}", USAGE)
    return rendered.stdout
