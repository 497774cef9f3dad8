"""The process that compiles: `python -m ssl_jax.plan.compile_worker FOLDER`.

Reads FOLDER/task.json, writes FOLDER/answer.json: the program, or the fault that it met.
"""

import json
import os
import pathlib
import sys
from typing import Any

from ssl_jax import config as configuration
from ssl_jax.errors import Fault
from ssl_jax.plan import topologies
from ssl_jax.plan.program import to_json
from ssl_jax.rundir import workdir


def main(folder: pathlib.Path) -> None:
    """Answers the task of the folder."""
    task = json.loads((folder / "task.json").read_text())
    try:
        answer = _answer(task)
    except Fault as fault:
        answer = {"fault": str(fault), "code": fault.code}
    workdir.write_json(folder / "answer.json", answer)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # libtpu's threads may hang a process that ends otherwise


def _answer(task: dict[str, Any]) -> dict[str, Any]:
    from ssl_jax.plan import compile_step, device_rates, measure_step

    config = configuration.from_json(json.dumps(task["config"]))
    topology = topologies.parse(task["topology"], slices=task["slices"])
    counts = {"images": task["images"], "classes": task["classes"]}
    program = compile_step.program(config, topology, **counts)
    run = measure_step.ready(config, topology, **counts) if task["check"] else None
    found = None
    if topology.chip.kind == "cpu":  # just before the step: what else runs here slows both alike
        found = device_rates.measure(measure_step.mesh(topology, 1))
        chip = device_rates.chip_of(topology.chip, found)
        program = program._replace(topology=topology._replace(chip=chip))
    return {
        "program": to_json(program),
        "state_bytes": measure_step.state_bytes(config, **counts),
        "latency": found.latency if found else None,
        "checked": run()._asdict() if run else None,
    }


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
