"""All processes of a job meet before JAX starts: JAX aborts when one is missing, and names none.

Every process tells process 0 its number and its host, at the address that JAX will use, and gets
the list of all. A line of JSON each way.
"""

import contextlib
import json
import socket
import time
from typing import Any

from ssl_jax.errors import STOPPED_EARLY, USAGE, Fault

LONGEST = 4096  # bytes of a greeting
PATIENCE = 2.0  # seconds for a connection to say who it is
PAUSE = 0.2  # seconds between two tries to reach process 0


def call(coordinator: str, processes: int, process: int, *, timeout: float) -> list[str]:
    """The hosts of all processes, by their numbers, once all are there.

    Args:
      coordinator: "host:port" of process 0.
      timeout: seconds.

    Raises:
      Fault: STOPPED_EARLY when some are missing, which are named; USAGE when two have one number,
        or process 0's port is taken.
    """
    deadline = time.monotonic() + timeout
    if process:
        answer = _greet(coordinator, process, deadline, timeout)
    else:
        answer = _receive(coordinator, processes, deadline, timeout)
    if "error" in answer:
        raise Fault(answer["error"], answer["code"])
    return answer["hosts"]


def _receive(coordinator: str, processes: int, deadline: float, timeout: float) -> dict[str, Any]:
    """What process 0 does: collects greetings, and answers all at once."""
    hosts = {0: socket.gethostname()}
    guests: dict[int, socket.socket] = {}
    answer: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(_server(coordinator))
        while len(hosts) < processes and not answer:
            server.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                guest = stack.enter_context(server.accept()[0])
            except TimeoutError:
                answer = _missing(coordinator, processes, set(hosts), timeout)
                break
            greeting = _line(guest, PATIENCE)
            number, host = greeting.get("process"), str(greeting.get("host"))
            if not isinstance(number, int) or not 0 < number < processes:
                continue  # whoever it was, it is none of ours
            if number in guests and _is_there(guests[number]):
                error = f"two processes say that they are number {number} of {processes}: on "
                answer = {"error": f"{error}{hosts[number]} and on {host}", "code": USAGE}
                guests[-1] = guest
            else:
                guests[number], hosts[number] = guest, host
        answer = answer or {"hosts": [hosts[number] for number in range(processes)]}
        for guest in guests.values():
            with contextlib.suppress(OSError):  # gone again: JAX will notice
                guest.sendall(json.dumps(answer).encode() + b"\n")
    return answer


def _server(coordinator: str) -> socket.socket:
    port = int(coordinator.rpartition(":")[2])
    try:
        # As JAX's own service: on all addresses, of both kinds where the host has them.
        dual = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if dual else socket.AF_INET
        return socket.create_server(("", port), family=family, dualstack_ipv6=dual)
    except OSError as error:
        message = f"process 0 cannot listen on port {port}: {error.strerror}"
        raise Fault(f"{message}; give all processes another coordinator port", USAGE) from error


def _missing(coordinator: str, processes: int, there: set[int], timeout: float) -> dict[str, Any]:
    absent = sorted(set(range(processes)) - there)
    shown = ", ".join(map(str, absent[:20])) + (", ..." if len(absent) > 20 else "")
    error = f"waited {timeout:g} s at {coordinator}: of {processes} processes {len(absent)} "
    error += f"missing: {shown}. Look at their logs, and whether they reach that address"
    return {"error": error, "code": STOPPED_EARLY}


def _greet(coordinator: str, process: int, deadline: float, timeout: float) -> dict[str, Any]:
    """What the others do: tell process 0 who they are, as often as it takes, and wait for all."""
    host, _, port = coordinator.rpartition(":")
    address = (host.strip("[]"), int(port))
    greeting = {"process": process, "host": socket.gethostname()}
    while (left := deadline - time.monotonic()) > 0:
        with contextlib.suppress(OSError), socket.create_connection(address, left) as connection:
            connection.sendall(json.dumps(greeting).encode() + b"\n")
            # Process 0 may have been started later, and then waits longer.
            if answer := _line(connection, left + timeout):
                return answer
        time.sleep(PAUSE)
    error = f"waited {timeout:g} s: process 0 does not answer process {process} at {coordinator}. "
    error += "Look at its log, and whether this host reaches that address"
    return {"error": error, "code": STOPPED_EARLY}


def _line(connection: socket.socket, patience: float) -> dict[str, Any]:
    """One JSON object; {} when there comes none."""
    connection.settimeout(patience)
    text = b""
    try:
        while not text.endswith(b"\n") and len(text) < LONGEST * 1024:
            if not (part := connection.recv(LONGEST)):
                return {}
            text += part
        found = json.loads(text)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _is_there(connection: socket.socket) -> bool:
    """Whether the other side still holds the connection."""
    connection.setblocking(False)
    try:
        return connection.recv(1, socket.MSG_PEEK) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False
