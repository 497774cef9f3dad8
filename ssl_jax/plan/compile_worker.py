"""Process that compiles a step for a plan: `python -m ssl_jax.plan.compile_worker FOLDER`.

`compile_in_subprocess` starts it. It reads FOLDER/task.json and writes FOLDER/answer.json, which
holds the program or the error.
"""

import json
import os
import pathlib
import sys
from typing import Any

from ssl_jax import config as configuration
from ssl_jax.errors import Fault
from ssl_jax.plan import topologies
from ssl_jax.plan.program import program_to_json
from ssl_jax.rundir import workdir


def main(folder: pathlib.Path) -> None:
    """Compiles the folder's task and ends the process."""
    task = json.loads((folder / "task.json").read_text())
    try:
        answer = _compile(task)
    except Fault as fault:
        answer = {"fault": str(fault), "code": fault.code}
    workdir.write_json(folder / "answer.json", answer)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # libtpu's threads can hang a process that exits normally


def _compile(task: dict[str, Any]) -> dict[str, Any]:
    from ssl_jax.plan import compile_step, device_rates, measure_step

    config = configuration.from_json(json.dumps(task["config"]))
    topology = topologies.parse(task["topology"], slices=task["slices"])
    size = {"images": task["images"], "classes": task["classes"]}
    program = compile_step.compile_program(config, topology, **size)
    measure = measure_step.prepare(config, topology, **size) if task["check"] else None
    rates = None
    # Measure rates just before the step, so that other load on this machine slows both alike.
    if topology.chip.kind == "cpu":
        rates = device_rates.measure(measure_step.local_mesh(topology, 1))
        chip = device_rates.with_rates(topology.chip, rates)
        program = program._replace(topology=topology._replace(chip=chip))
    return {
        "program": program_to_json(program),
        "state_bytes": measure_step.state_bytes(config, **size),
        "latency": rates.latency if rates else None,
        "checked": measure()._asdict() if measure else None,
    }


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
