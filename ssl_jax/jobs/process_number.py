"""Number of this process in its job, read from the environment without JAX.

Standard library only.
"""

from collections.abc import Iterable, Mapping

# The first variable that is set gives the number. The first group counts over the whole job, the
# second within one TPU slice.
JOB_VARIABLES = ("SSL_JAX_PROCESS", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "SKYPILOT_NODE_RANK")
SLICE_VARIABLES = ("TPU_WORKER_ID", "CLOUD_TPU_TASK_ID", "JOB_COMPLETION_INDEX")


def process_number(environment: Mapping[str, str], flag: str | None = None) -> int:
    """Returns the number of this process, counted from 0; 0 if nothing gives a number.

    Args:
      environment: the environment variables.
      flag: value of --process, if given; it takes precedence over all variables.
    """
    number = _first_number([flag, *map(environment.get, JOB_VARIABLES)])
    if number is not None:
        return number
    slice_number = _first_number([environment.get("MEGASCALE_SLICE_ID")]) or 0
    hosts = len(environment.get("TPU_WORKER_HOSTNAMES", "").split(","))
    number_in_slice = _first_number(map(environment.get, SLICE_VARIABLES)) or 0
    return slice_number * hosts + number_in_slice


def _first_number(values: Iterable[str | None]) -> int | None:
    return next((int(value) for value in values if value and value.isdecimal()), None)
