"""Several processes as one job: who takes part, how they meet, and how one of them leaves."""

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

from ssl_jax.errors import CANNOT_CREATE, USAGE, Fault
from ssl_jax.jobs import roll_call

HEARTBEAT = 30  # seconds without a sign of life after which a process counts as dead
LATE = 30  # seconds that a network file system may take to show a file
PORT = 8476  # of process 0, where a cluster gives addresses alone
T = TypeVar("T")
_crew = [socket.gethostname()]  # the host of every process of this job


class Place(NamedTuple):
    """One process's place in the job."""

    coordinator: str  # "host:port" of process 0; "" for a job of one process
    processes: int
    process: int
    local_devices: list[int] | None = None  # of the host's; None for all


def start(
    coordinator: str = "", processes: int = 0, process: int = -1, *, timeout: int = 300
) -> None:
    """Joins the job that the arguments, the environment or the cluster describe; once, before JAX
    is used. Without any of them this process is alone.

    Args:
      coordinator: "host:port" of process 0, the same for all; "" to look further.
      processes, process: how many there are, and which is this one; 0 and -1 to look further.
      timeout: seconds to wait for all of them.

    Raises:
      Fault: USAGE for an incomplete description, WATCHDOG when processes are missing.
    """
    if jax.distributed.is_initialized():
        return
    place = find(coordinator, processes, process, os.environ)
    if place.processes == 1:
        return
    _crew[:] = roll_call.call(place.coordinator, place.processes, place.process, timeout=timeout)
    # It would take SIGTERM for itself, and tells of it at steps alone: see ssl_jax.jobs.stop.
    jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(
        place.coordinator,
        place.processes,
        place.process,
        local_device_ids=place.local_devices,
        initialization_timeout=timeout,
        heartbeat_timeout_seconds=HEARTBEAT,
        cluster_detection_method="deactivate",
    )


def find(coordinator: str, processes: int, process: int, environment: Mapping[str, str]) -> Place:
    """This process's place: by the arguments, else SSL_JAX_*, else SkyPilot, else JAX's detection.

    Raises:
      Fault: one of the three is missing or out of range, or a cluster says nonsense.
    """
    if coordinator or processes or process >= 0:
        return _checked(coordinator, str(processes), str(process), _FLAGS)
    if any(name in environment for name in _VARIABLES):
        found = [environment.get(name, "") for name in _VARIABLES]
        return _checked(found[0], found[1], found[2], _VARIABLES)
    if "SKYPILOT_NODE_IPS" in environment:
        names = ("SKYPILOT_NODE_IPS", "SKYPILOT_NUM_NODES", "SKYPILOT_NODE_RANK")
        first = environment["SKYPILOT_NODE_IPS"].split()[0]
        found = [environment.get(name, "") for name in names[1:]]
        return _checked(f"{first}:{PORT}", found[0], found[1], names)
    return _detected()


_FLAGS = ("--coordinator", "--processes", "--process")
_VARIABLES = ("SSL_JAX_COORDINATOR", "SSL_JAX_PROCESSES", "SSL_JAX_PROCESS")
ALONE = Place("", 1, 0)


def _checked(coordinator: str, processes: str, process: str, names: tuple[str, ...]) -> Place:
    if processes == "1":
        return ALONE
    problems = []
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit():
        problems.append(f"{names[0]}={coordinator!r}: HOST:PORT of process 0, the same for all")
    count = int(processes) if processes.isdigit() else 0
    if count < 1:
        problems.append(f"{names[1]}={processes!r}: how many processes there are")
    if not process.isdigit() or int(process) >= max(count, 1):
        below = f"0 to {count - 1}" if count else "counted from 0"
        problems.append(f"{names[2]}={process!r}: which process this is, {below}")
    if problems:
        raise Fault("several processes: give all three:\n  " + "\n  ".join(problems), USAGE)
    return Place(coordinator, count, int(process))


def _detected() -> Place:
    """What JAX detects: Slurm, OpenMPI, Cloud TPU, GKE, Kubernetes."""
    # Public `initialize` does the same, but neither tells before it waits nor who is missing after.
    from jax._src.clusters import ClusterEnv

    try:
        found = ClusterEnv.auto_detect_unset_distributed_params(None, None, None, None, None, 300)
    except Exception as error:  # of a metadata server, Kubernetes' or the parser of a node list
        raise Fault(
            f"a cluster was detected, but not this process's place in it: {error}; give "
            f"{', '.join(_FLAGS)}, or --processes=1 to run alone",
            USAGE,
        ) from error
    coordinator, processes, process, local = found
    if coordinator is None or processes is None or process is None or processes == 1:
        return ALONE
    return Place(coordinator, processes, process, None if local is None else list(local))


def on_first(function: Callable[[], T]) -> T | None:
    """Calls `function` in process 0 alone; None in the others, which wait for it.

    Raises:
      Fault: in all processes, when process 0 met one.
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
        raise fault or Fault("process 0 has stopped; its message says why", code)
    return result


def check_shared(folder: os.PathLike[str]) -> None:
    """Raises Fault, in all processes, unless all of them see `folder` as process 0 does."""
    if jax.process_count() == 1:
        return
    mark = int(multihost_utils.broadcast_one_to_all(np.int32(os.getpid())))
    file = os.path.join(folder, f".seen-{mark}")
    if jax.process_index() == 0:
        with open(file, "w", encoding="utf-8"):
            pass
    # A network file system may show it late.
    multihost_utils.sync_global_devices("a file in the workdir")
    deadline = time.monotonic() + LATE
    while not (seen := os.path.exists(file)) and time.monotonic() < deadline:
        time.sleep(0.1)
    blind = np.flatnonzero(~multihost_utils.process_allgather(np.array(seen)))
    if jax.process_index() == 0:
        os.remove(file)
    if len(blind):
        raise Fault(
            f"{folder} is not the same folder everywhere: what process 0 wrote is not seen by "
            f"{', '.join(map(str, blind))}. Give --workdir a folder that all hosts mount",
            CANNOT_CREATE,
        )


def show() -> None:
    """Prints which process has which devices, if there are several; warns of idle GPUs."""
    here, crew = jax.process_index(), _crew
    if here == 0 and len(crew) > 1:
        print(f"{len(crew)} processes, {jax.device_count()} devices", flush=True)
        for number, host in enumerate(crew):
            own = [d for d in jax.devices() if d.process_index == number]
            kinds = f"{len(own)} x {own[0].device_kind}" if own else "no device"
            print(f"  process {number} on {host}: {kinds}", flush=True)
    gpus, mates = _gpus(), [n for n, host in enumerate(crew) if host == crew[here]]
    used = len(mates) * jax.local_device_count() if jax.default_backend() == "gpu" else 0
    if used < gpus and here == mates[0]:
        message = f"warning: {crew[here]} has {gpus} GPUs, {used} are used: "
        advice = "start as many processes on it, or one that sees all (JAX_LOCAL_DEVICE_IDS=0,1,..)"
        if not used:
            advice = 'install JAX for them, pip install -U "jax[cuda13]"'
        print(message + advice, flush=True)


def _gpus() -> int:
    """How many NVIDIA GPUs this process may use."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    found = len([name for name in os.listdir("/dev") if re.fullmatch(r"nvidia\d+", name)])
    return found if chosen is None else min(found, len([n for n in chosen.split(",") if n]))


def leave(text: str, code: int) -> None:
    """Prints, and ends one process of several at once; alone, it does nothing.

    The usual end waits for the others, and these may be waiting for this one.
    """
    if jax.distributed.is_initialized():
        print(text, file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
