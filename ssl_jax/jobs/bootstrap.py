"""Start-up of a job of several processes: find the job, connect, check what the processes share."""

import os
import re
import socket
import sys
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from ssl_jax.errors import CANNOT_CREATE, USAGE, Fault, printable
from ssl_jax.jobs import files, roll_call

HEARTBEAT_TIMEOUT = 30  # seconds without a heartbeat after which JAX counts a process as dead
FILE_TIMEOUT = 30  # seconds that a network file system may take to show a new file
DEFAULT_PORT = 8476  # of the roll call, if the cluster gives only the address of process 0
T = TypeVar("T")
_hosts = [printable(socket.gethostname())]  # host name of every process of this job


class JobSpec(NamedTuple):
    """A job and this process's place in it.

    Attributes:
      coordinator: "host:port" of process 0; "" for a job of one process.
      processes: number of processes.
      process: number of this process.
      local_devices: indices of the host's devices that this process uses; None for all.
      attempt: name of this start of the job, if every start has the same coordinator; else "".
    """

    coordinator: str
    processes: int
    process: int
    local_devices: list[int] | None = None
    attempt: str = ""


def connect(
    coordinator: str = "", processes: int = 0, process: int = -1, *, timeout: int = 300
) -> None:
    """Connects to the other processes of the job; call it before any other use of JAX.

    The arguments, the environment or the cluster describe the job; see `find_job`. Does nothing
    for a job of one process, or if already connected.

    Args:
      coordinator: "host:port" of process 0, the same in all processes; "" if not given.
      processes: number of processes; 0 if not given.
      process: number of this process; -1 if not given.
      timeout: seconds to wait for all processes.

    Raises:
      Fault: USAGE for an incomplete description, WATCHDOG if processes are missing.
    """
    if jax.distributed.is_initialized():
        return
    job = find_job(coordinator, processes, process, os.environ)
    if job.processes == 1:
        return
    _hosts[:], address = roll_call.call(
        job.coordinator, job.processes, job.process, timeout=timeout, attempt=job.attempt
    )
    # JAX's service would handle SIGTERM itself, and only between steps; see ssl_jax.jobs.stop.
    jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(
        address,
        job.processes,
        job.process,
        local_device_ids=job.local_devices,
        initialization_timeout=timeout,
        heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT,
        cluster_detection_method="deactivate",
    )


def find_job(
    coordinator: str, processes: int, process: int, environment: Mapping[str, str]
) -> JobSpec:
    """Returns the job given by the arguments, SSL_JAX_*, SkyPilot or JAX's cluster detection.

    The first source that is present decides. Without any, the job has one process.

    Raises:
      Fault: USAGE if a value is missing or out of range, or if cluster detection fails.
    """
    if coordinator or processes or process >= 0:
        return _checked(coordinator, str(processes), str(process), _FLAGS)
    if any(name in environment for name in _VARIABLES):
        values = [environment.get(name, "") for name in _VARIABLES]
        return _checked(values[0], values[1], values[2], _VARIABLES)
    if "SKYPILOT_NODE_IPS" in environment:
        names = ("SKYPILOT_NODE_IPS", "SKYPILOT_NUM_NODES", "SKYPILOT_NODE_RANK")
        first = environment["SKYPILOT_NODE_IPS"].split()[0]
        values = [environment.get(name, "") for name in names[1:]]
        job = _checked(f"{first}:{DEFAULT_PORT}", values[0], values[1], names)
        # The task keeps its number when it recovers. On the same cluster, the job gets another one.
        attempt = "/".join(filter(None, map(environment.get, _SKYPILOT_ATTEMPT)))
        return job._replace(attempt=attempt) if job.processes > 1 else job
    return _detected()


_FLAGS = ("--coordinator", "--processes", "--process")
_VARIABLES = ("SSL_JAX_COORDINATOR", "SSL_JAX_PROCESSES", "SSL_JAX_PROCESS")
_SKYPILOT_ATTEMPT = ("SKYPILOT_TASK_ID", "SKYPILOT_INTERNAL_JOB_ID")
SINGLE_PROCESS = JobSpec("", 1, 0)


def _checked(coordinator: str, processes: str, process: str, names: tuple[str, ...]) -> JobSpec:
    if processes == "1":
        return SINGLE_PROCESS
    problems = []
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit():
        problems.append(
            f"{names[0]}={coordinator!r}: must be HOST:PORT of process 0, the same in all processes"
        )
    count = int(processes) if processes.isdigit() else 0
    if count < 1:
        problems.append(f"{names[1]}={processes!r}: must be the number of processes")
    if not process.isdigit() or int(process) >= max(count, 1):
        allowed = f"0 to {count - 1}" if count else "counted from 0"
        problems.append(f"{names[2]}={process!r}: must be the number of this process, {allowed}")
    if problems:
        raise Fault(
            "a job of several processes needs all three values:\n  " + "\n  ".join(problems), USAGE
        )
    return JobSpec(coordinator, count, int(process))


def _detected() -> JobSpec:
    """Returns the job that JAX detects: Slurm, OpenMPI, Cloud TPU, GKE, Kubernetes."""
    # Public `initialize` runs the same detection, but does not show its result before it waits,
    # nor name the missing processes after.
    from jax._src.clusters import ClusterEnv

    try:
        detected = ClusterEnv.auto_detect_unset_distributed_params(
            None, None, None, None, None, 300
        )
    except Exception as error:  # of a metadata server, of Kubernetes, or of a node list's parser
        raise Fault(
            f"a cluster was detected, but not this process's number in it: {error}. Pass "
            f"{', '.join(_FLAGS)}, or --processes=1 to run alone",
            USAGE,
        ) from error
    coordinator, processes, process, local = detected
    if coordinator is None or processes is None or process is None or processes == 1:
        return SINGLE_PROCESS
    return JobSpec(coordinator, processes, process, None if local is None else list(local))


def run_on_process_0(function: Callable[[], T]) -> T | None:
    """Calls `function` in process 0 while the other processes wait.

    Returns:
      The function's result in process 0, None in the other processes.

    Raises:
      Fault: in all processes, if the function raised a Fault in process 0.
    """
    if jax.process_count() == 1:
        return function()
    result, fault = None, None
    if jax.process_index() == 0:
        try:
            result = function()
        except Fault as error:
            fault = error
    code = int(multihost_utils.broadcast_one_to_all(np.int32(fault.code if fault else 0)))
    if code:
        raise fault or Fault("process 0 has stopped; see its message for the cause", code)
    return result


def check_shared_folder(folder: os.PathLike[str]) -> None:
    """Checks that all processes see the folder of process 0.

    Raises:
      Fault: CANNOT_CREATE, in all processes, if some do not see a file that process 0 wrote.
    """
    if jax.process_count() == 1:
        return
    mark = int(multihost_utils.broadcast_one_to_all(np.int32(os.getpid())))
    file = os.path.join(folder, f".seen-{mark}")
    if jax.process_index() == 0:
        files.write(file, "")
    multihost_utils.sync_global_devices("a file in the workdir")
    # A network file system may show the file with a delay.
    deadline = time.monotonic() + FILE_TIMEOUT
    while not (seen := os.path.exists(file)) and time.monotonic() < deadline:
        time.sleep(0.1)
    blind = np.flatnonzero(~multihost_utils.process_allgather(np.array(seen)))
    if jax.process_index() == 0:
        os.remove(file)
    if len(blind):
        raise Fault(
            f"{folder} is not the same folder on every host: these processes do not see a file "
            f"that process 0 wrote there: {', '.join(map(str, blind))}. Pass a --workdir that all "
            "hosts mount",
            CANNOT_CREATE,
        )


def print_devices() -> None:
    """Prints the devices of each process of a job of several; warns about unused GPUs."""
    here, hosts = jax.process_index(), _hosts
    if here == 0 and len(hosts) > 1:
        print(f"{len(hosts)} processes, {jax.device_count()} devices", flush=True)
        for number, host in enumerate(hosts):
            own = [d for d in jax.devices() if d.process_index == number]
            kinds = f"{len(own)} x {own[0].device_kind}" if own else "no device"
            print(f"  process {number} on {host}: {kinds}", flush=True)
    gpus, same_host = _gpu_count(), [n for n, host in enumerate(hosts) if host == hosts[here]]
    used = len(same_host) * jax.local_device_count() if jax.default_backend() == "gpu" else 0
    if used < gpus and here == same_host[0]:
        message = f"warning: {hosts[here]} has {gpus} GPUs, {used} are used. "
        advice = "Start one process per GPU, or one that sees all (JAX_LOCAL_DEVICE_IDS=0,1,..)"
        if not used:
            advice = 'Install JAX with GPU support: pip install -U "jax[cuda13]"'
        print(message + advice, flush=True)


def _gpu_count() -> int:
    """Returns the number of NVIDIA GPUs that this process may use."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    installed = len([name for name in os.listdir("/dev") if re.fullmatch(r"nvidia\d+", name)])
    return installed if chosen is None else min(installed, len([n for n in chosen.split(",") if n]))


def exit_now(text: str, code: int) -> None:
    """Prints `text` to standard error and ends this process at once, if the job has several.

    A normal exit would wait for the other processes, which may be waiting for this one. Does
    nothing in a job of one process.
    """
    if jax.distributed.is_initialized():
        print(text, file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def print_once(text: str) -> None:
    """Prints a line in process 0 of the job only."""
    if jax.process_index() == 0:
        print(text, flush=True)
