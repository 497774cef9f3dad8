"""Which process of a job this is, told by the environment, before JAX could say. Standard library
only."""

from collections.abc import Iterable, Mapping

# Variables that say so, and those that say so within a TPU slice; the first that is set counts.
OF_JOB = ("SSL_JAX_PROCESS", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "SKYPILOT_NODE_RANK")
OF_SLICE = ("TPU_WORKER_ID", "CLOUD_TPU_TASK_ID", "JOB_COMPLETION_INDEX")


def rank(environment: Mapping[str, str], flag: str | None = None) -> int:
    """The process's number, from 0; 0 where nothing says another.

    Args:
      flag: the value of --process, if it is given, which counts before all variables.
    """
    found = _first([flag, *map(environment.get, OF_JOB)])
    if found is not None:
        return found
    slices = _first([environment.get("MEGASCALE_SLICE_ID")]) or 0
    hosts = len(environment.get("TPU_WORKER_HOSTNAMES", "").split(","))
    return slices * hosts + (_first(map(environment.get, OF_SLICE)) or 0)


def _first(values: Iterable[str | None]) -> int | None:
    return next((int(value) for value in values if value and value.isdecimal()), None)
