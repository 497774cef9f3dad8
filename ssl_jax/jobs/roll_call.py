"""All processes of a job meet before JAX starts: JAX aborts when one is missing, and names none.

Every process tells process 0 its number and its host, at the address that JAX will use, and gets
the list of all. A line of JSON each way.
"""

import contextlib
import json
import select
import socket
import time
from typing import Any

from ssl_jax.errors import USAGE, WATCHDOG, Fault

GREETING, ANSWER = 2**12, 2**24  # bytes at most
ALIVE = 15  # seconds after which a host that vanished without a word is given up
PATIENCE = 2.0  # seconds for a connection to say who it is
PAUSE = 0.2  # seconds between two tries to reach process 0


def call(coordinator: str, processes: int, process: int, *, timeout: float) -> list[str]:
    """The hosts of all processes, by their numbers, once all are there.

    Args:
      coordinator: "host:port" of process 0.
      timeout: seconds.

    Raises:
      Fault: WATCHDOG when some are missing, which are named, or process 0's port is taken, which
        another start may cure; USAGE when two have one number; the code of a process that was
        stopped before all had met.
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
        try:
            while len(hosts) < processes and not answer:
                left = max(deadline - time.monotonic(), 0.0)
                ready, _, _ = select.select([server, *guests.values()], [], [], left)
                if not ready:
                    answer = _missing(coordinator, processes, set(hosts), timeout)
                elif server in ready:
                    guest = stack.enter_context(server.accept()[0])
                    answer = _admit(guest, processes, guests, hosts)
                else:
                    answer = _part(ready, guests, hosts)
        except Fault as fault:  # a signal
            _tell(guests, {"error": _stopped(0, str(fault)), "code": fault.code})
            raise
        answer = answer or {"hosts": [hosts[number] for number in range(processes)]}
        _tell(guests, answer)
    return answer


def _tell(guests: dict[int, socket.socket], answer: dict[str, Any]) -> None:
    for guest in guests.values():
        with contextlib.suppress(OSError):  # gone again: JAX will notice
            guest.sendall(json.dumps(answer).encode() + b"\n")


def _admit(
    guest: socket.socket, processes: int, guests: dict[int, socket.socket], hosts: dict[int, str]
) -> dict[str, Any]:
    """Enters a newcomer; returns what to answer to all if that ends the call, else {}."""
    _keep_alive(guest)
    greeting = _line(guest, PATIENCE, GREETING)
    number, host = greeting.get("process"), str(greeting.get("host"))
    if type(number) is not int or not 0 < number < processes:
        return {}  # whoever it was, it is none of ours
    if number in guests and _is_there(guests[number]):
        error = f"two processes say that they are number {number} of {processes}: on "
        guests[-1] = guest
        return {"error": f"{error}{hosts[number]} and on {host}", "code": USAGE}
    guests[number], hosts[number] = guest, host
    return {}


def _part(
    ready: list[socket.socket], guests: dict[int, socket.socket], hosts: dict[int, str]
) -> dict[str, Any]:
    """Strikes out who is gone, and may be started again; as `_admit` if one says that it stops."""
    for number in [number for number, guest in guests.items() if guest in ready]:
        said = _line(guests[number], PATIENCE, GREETING)
        del guests[number], hosts[number]
        if type(said.get("code")) is int:
            return {"error": _stopped(number, str(said.get("stops"))), "code": said["code"]}
    return {}


def _stopped(process: int, why: str) -> str:
    return f"process {process} was stopped before all had met: {why}"


def _server(coordinator: str) -> socket.socket:
    port = int(coordinator.rpartition(":")[2])
    try:
        # As JAX's own service: on all addresses, of both kinds where the host has them.
        dual = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if dual else socket.AF_INET
        return socket.create_server(("", port), family=family, dualstack_ipv6=dual)
    except OSError as error:
        message = f"process 0 cannot listen on port {port}: {error.strerror}"
        raise Fault(f"{message}; give all processes another coordinator port", WATCHDOG) from error


def _missing(coordinator: str, processes: int, there: set[int], timeout: float) -> dict[str, Any]:
    absent = sorted(set(range(processes)) - there)
    shown = ", ".join(map(str, absent[:20])) + (", ..." if len(absent) > 20 else "")
    error = f"waited {timeout:g} s at {coordinator}: of {processes} processes {len(absent)} "
    error += f"missing: {shown}. Look at their logs, and whether they reach that address"
    return {"error": error, "code": WATCHDOG}


def _greet(coordinator: str, process: int, deadline: float, timeout: float) -> dict[str, Any]:
    """What the others do: tell process 0 who they are, as often as it takes, and wait for all."""
    host, _, port = coordinator.rpartition(":")
    address = (host.strip("[]"), int(port))
    greeting = {"process": process, "host": socket.gethostname()}
    while (left := deadline - time.monotonic()) > 0:
        with contextlib.suppress(OSError), socket.create_connection(address, left) as connection:
            connection.sendall(json.dumps(greeting).encode() + b"\n")
            try:
                # Process 0 may have been started later, and then waits longer.
                if answer := _line(connection, left + timeout, ANSWER):
                    return answer
            except Fault as fault:  # a signal
                farewell = {"stops": str(fault), "code": fault.code}
                connection.sendall(json.dumps(farewell).encode() + b"\n")
                raise
        time.sleep(PAUSE)
    error = f"waited {timeout:g} s: process 0 does not answer process {process} at {coordinator}. "
    error += "Look at its log, and whether this host reaches that address"
    return {"error": error, "code": WATCHDOG}


def _keep_alive(connection: socket.socket) -> None:
    """Has the system ask whether the other side is there: a host may vanish without a word."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("IDLE", ALIVE // 3), ("INTVL", ALIVE // 3), ("CNT", 2)):
        if number := getattr(socket, f"TCP_KEEP{option}", None):  # not all on macOS
            connection.setsockopt(socket.IPPROTO_TCP, number, value)


def _line(connection: socket.socket, patience: float, longest: int) -> dict[str, Any]:
    """One JSON object of at most `longest` bytes; {} if there is none within `patience` seconds."""
    deadline = time.monotonic() + patience
    text = b""
    try:
        while not text.endswith(b"\n"):
            connection.settimeout(max(deadline - time.monotonic(), 0.001))
            part = connection.recv(2**16)
            text += part
            if not part or len(text) > longest or time.monotonic() > deadline:
                return {}
        found = json.loads(text)
    except (OSError, ValueError, RecursionError):
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
