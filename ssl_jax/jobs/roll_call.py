"""Roll call: all processes of a job connect to process 0 before JAX starts.

JAX itself aborts when a process is missing and does not say which one. In the roll call, every
process sends its number and host name to process 0, at the address that JAX will use later, and
receives the list of all hosts. Each message is one line of JSON.
"""

import contextlib
import json
import select
import socket
import time
from typing import Any

from ssl_jax.errors import USAGE, WATCHDOG, Fault

MAX_GREETING, MAX_ANSWER = 2**12, 2**24  # bytes
KEEPALIVE_SECONDS = 15  # after which a host that vanished without closing is dropped
GREETING_TIMEOUT = 2.0  # seconds for a connection to send its greeting
RETRY_INTERVAL = 0.2  # seconds between two attempts to reach process 0


def call(coordinator: str, processes: int, process: int, *, timeout: float) -> list[str]:
    """Waits for all processes; returns their host names, ordered by process number.

    Args:
      coordinator: "host:port" of process 0.
      processes: number of processes in the job.
      process: number of this process.
      timeout: seconds to wait.

    Raises:
      Fault: WATCHDOG if processes are missing (the message names them) or if process 0's port is
        taken (another start may use another port); USAGE if two processes have the same number;
        the exit code of a process that was stopped before all processes connected.
    """
    deadline = time.monotonic() + timeout
    if process:
        answer = _greet(coordinator, process, deadline, timeout)
    else:
        answer = _collect(coordinator, processes, deadline, timeout)
    if "error" in answer:
        raise Fault(answer["error"], answer["code"])
    return answer["hosts"]


def _collect(coordinator: str, processes: int, deadline: float, timeout: float) -> dict[str, Any]:
    """Collects the greetings as process 0 and answers all processes at once."""
    hosts = {0: socket.gethostname()}
    guests: dict[int, socket.socket] = {}
    answer: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(_listen(coordinator))
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
                    answer = _remove_disconnected(ready, guests, hosts)
        except Fault as fault:  # a signal arrived
            _answer_all(guests, {"error": _stop_message(0, str(fault)), "code": fault.code})
            raise
        answer = answer or {"hosts": [hosts[number] for number in range(processes)]}
        _answer_all(guests, answer)
    return answer


def _answer_all(guests: dict[int, socket.socket], answer: dict[str, Any]) -> None:
    for guest in guests.values():
        with contextlib.suppress(OSError):  # disconnected again; JAX will notice
            guest.sendall(json.dumps(answer).encode() + b"\n")


def _admit(
    guest: socket.socket, processes: int, guests: dict[int, socket.socket], hosts: dict[int, str]
) -> dict[str, Any]:
    """Registers a new connection; returns an error answer if that ends the roll call, else {}."""
    _enable_keepalive(guest)
    greeting = _read_line(guest, GREETING_TIMEOUT, MAX_GREETING)
    number, host = greeting.get("process"), str(greeting.get("host"))
    if type(number) is not int or not 0 < number < processes:
        return {}  # not a process of this job
    if number in guests and _is_connected(guests[number]):
        error = f"two processes have the same number {number} of {processes}: on "
        guests[-1] = guest
        return {"error": f"{error}{hosts[number]} and on {host}", "code": USAGE}
    guests[number], hosts[number] = guest, host
    return {}


def _remove_disconnected(
    ready: list[socket.socket], guests: dict[int, socket.socket], hosts: dict[int, str]
) -> dict[str, Any]:
    """Removes processes that disconnected; they may be started again.

    Returns an error answer if one of them was stopped by a signal, else {}.
    """
    for number in [number for number, guest in guests.items() if guest in ready]:
        farewell = _read_line(guests[number], GREETING_TIMEOUT, MAX_GREETING)
        del guests[number], hosts[number]
        if type(farewell.get("code")) is int:
            message = _stop_message(number, str(farewell.get("stops")))
            return {"error": message, "code": farewell["code"]}
    return {}


def _stop_message(process: int, why: str) -> str:
    return f"process {process} was stopped before all processes connected: {why}"


def _listen(coordinator: str) -> socket.socket:
    port = int(coordinator.rpartition(":")[2])
    try:
        # Like JAX's service: on all addresses, IPv4 and IPv6 where the host supports both.
        dual = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if dual else socket.AF_INET
        return socket.create_server(("", port), family=family, dualstack_ipv6=dual)
    except OSError as error:
        message = f"process 0 cannot listen on port {port}: {error.strerror}"
        raise Fault(f"{message}; give all processes another coordinator port", WATCHDOG) from error


def _missing(
    coordinator: str, processes: int, connected: set[int], timeout: float
) -> dict[str, Any]:
    absent = sorted(set(range(processes)) - connected)
    numbers = ", ".join(map(str, absent[:20])) + (", ..." if len(absent) > 20 else "")
    error = f"waited {timeout:g} s at {coordinator}: {len(absent)} of {processes} processes "
    error += f"missing: {numbers}. Check their logs and whether they can reach this address"
    return {"error": error, "code": WATCHDOG}


def _greet(coordinator: str, process: int, deadline: float, timeout: float) -> dict[str, Any]:
    """Sends the greeting to process 0, with retries, and waits for its answer."""
    host, _, port = coordinator.rpartition(":")
    address = (host.strip("[]"), int(port))
    greeting = {"process": process, "host": socket.gethostname()}
    while (left := deadline - time.monotonic()) > 0:
        with contextlib.suppress(OSError), socket.create_connection(address, left) as connection:
            connection.sendall(json.dumps(greeting).encode() + b"\n")
            try:
                # Process 0 may have started later; its timeout then ends later.
                if answer := _read_line(connection, left + timeout, MAX_ANSWER):
                    return answer
            except Fault as fault:  # a signal arrived
                farewell = {"stops": str(fault), "code": fault.code}
                connection.sendall(json.dumps(farewell).encode() + b"\n")
                raise
        time.sleep(RETRY_INTERVAL)
    error = f"waited {timeout:g} s: process 0 does not answer process {process} at {coordinator}. "
    error += "Check the log of process 0 and whether this host can reach that address"
    return {"error": error, "code": WATCHDOG}


def _enable_keepalive(connection: socket.socket) -> None:
    """Makes the system detect a host that vanished without closing the connection."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    interval = KEEPALIVE_SECONDS // 3
    for option, value in (("IDLE", interval), ("INTVL", interval), ("CNT", 2)):
        if number := getattr(socket, f"TCP_KEEP{option}", None):  # macOS lacks some of them
            connection.setsockopt(socket.IPPROTO_TCP, number, value)


def _read_line(connection: socket.socket, timeout: float, max_bytes: int) -> dict[str, Any]:
    """Reads one JSON object of at most `max_bytes`; {} if none arrives in `timeout` seconds."""
    deadline = time.monotonic() + timeout
    text = b""
    try:
        while not text.endswith(b"\n"):
            connection.settimeout(max(deadline - time.monotonic(), 0.001))
            part = connection.recv(2**16)
            text += part
            if not part or len(text) > max_bytes or time.monotonic() > deadline:
                return {}
        message = json.loads(text)
    except (OSError, ValueError, RecursionError):
        return {}
    return message if isinstance(message, dict) else {}


def _is_connected(connection: socket.socket) -> bool:
    """Returns whether the other side still holds the connection open."""
    connection.setblocking(False)
    try:
        return connection.recv(1, socket.MSG_PEEK) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False
