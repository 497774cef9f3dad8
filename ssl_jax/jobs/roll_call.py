"""Roll call: all processes of a job connect to process 0 before JAX starts.

JAX itself aborts when a process is missing and does not say which one. In the roll call, every
process sends its number, its host name and its attempt to process 0, and receives the list of all
hosts and the address that JAX will use. Each message is one line of JSON.
"""

import contextlib
import json
import select
import socket
import time
from typing import Any, NamedTuple

from ssl_jax.errors import USAGE, WATCHDOG, Fault, printable

MAX_GREETING, MAX_ANSWER = 2**12, 2**24  # bytes
KEEPALIVE_SECONDS = 15  # after which a host that vanished without closing is dropped
GREETING_TIMEOUT = 2.0  # seconds for a connection to send its greeting
RETRY_INTERVAL = 0.2  # seconds between two attempts to reach process 0


class Roll(NamedTuple):
    """Result of a roll call.

    Attributes:
      hosts: host name of every process.
      coordinator: "host:port" of process 0, for JAX.
    """

    hosts: list[str]
    coordinator: str


def call(
    coordinator: str, processes: int, process: int, *, timeout: float, attempt: str = ""
) -> Roll:
    """Waits for all processes of the job.

    Args:
      coordinator: "host:port" of process 0.
      processes: number of processes in the job.
      process: number of this process.
      timeout: seconds to wait.
      attempt: name of this start of the job, equal in all its processes, where several starts have
        the same coordinator. Process 0 then refuses processes of other attempts, and chooses a free
        port for JAX. The empty string: JAX uses the coordinator's port.

    Raises:
      Fault: WATCHDOG if processes are missing (the message names them), if process 0's port is
        taken (another start may use another port), or if process 0 belongs to another attempt;
        USAGE if two processes have the same number; the exit code of a process that was stopped
        before all processes connected.
    """
    deadline = time.monotonic() + timeout
    if process:
        answer = _greet(coordinator, process, attempt, deadline, timeout)
    else:
        answer = _collect(coordinator, processes, attempt, deadline, timeout)
    if "error" in answer:
        raise Fault(answer["error"], answer["code"])
    host, _, port = coordinator.rpartition(":")
    return Roll(answer["hosts"], f"{host}:{answer.get('port', port)}")


def _collect(
    coordinator: str, processes: int, attempt: str, deadline: float, timeout: float
) -> dict[str, Any]:
    """Collects the greetings as process 0 and answers all processes at once."""
    hosts = {0: printable(socket.gethostname())}
    guests: dict[int, socket.socket] = {}
    answer: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        # An older attempt may still hold the port for a moment.
        server = stack.enter_context(_listen(coordinator, deadline if attempt else 0))
        try:
            while len(hosts) < processes and not answer:
                left = max(deadline - time.monotonic(), 0.0)
                ready, _, _ = select.select([server, *guests.values()], [], [], left)
                if not ready:
                    answer = _missing(coordinator, processes, set(hosts), timeout)
                elif server in ready:
                    guest = stack.enter_context(server.accept()[0])
                    answer = _admit(guest, processes, attempt, guests, hosts)
                else:
                    answer = _remove_disconnected(ready, guests, hosts)
        except Fault as fault:  # a signal arrived
            _answer_all(guests, {"error": _stop_message(0, str(fault)), "code": fault.code})
            raise
        if not answer:
            port = {"port": _free_port()} if attempt else {}
            answer = {"hosts": [hosts[number] for number in range(processes)], **port}
        _answer_all(guests, answer)
    return answer


def _answer_all(guests: dict[int, socket.socket], answer: dict[str, Any]) -> None:
    for guest in guests.values():
        with contextlib.suppress(OSError):  # disconnected again; JAX will notice
            guest.sendall(json.dumps(answer).encode() + b"\n")


def _admit(
    guest: socket.socket,
    processes: int,
    attempt: str,
    guests: dict[int, socket.socket],
    hosts: dict[int, str],
) -> dict[str, Any]:
    """Registers a new connection; returns an error answer if that ends the roll call, else {}."""
    _enable_keepalive(guest)
    greeting = _read_line(guest, GREETING_TIMEOUT, MAX_GREETING)
    number, host = greeting.get("process"), printable(str(greeting.get("host")))
    if type(number) is not int or not 0 < number < processes:
        return {}  # not a process of this job
    if (other := greeting.get("attempt", "")) != attempt:
        error = f"process {number} on {host} belongs to attempt {other!r} of the job, but process "
        error += f"0 on {hosts[0]} to attempt {attempt!r}. Stop the older attempt"
        _answer_all({number: guest}, {"error": error, "code": WATCHDOG, "retry": True})
        guest.close()
        return {}  # this attempt still waits for its own process
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


def _listen(coordinator: str, deadline: float) -> socket.socket:
    """Listens at the coordinator's port; retries until the deadline while the port is taken."""
    port = int(coordinator.rpartition(":")[2])
    # Like JAX's service: on all addresses, IPv4 and IPv6 where the host supports both.
    dual = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual else socket.AF_INET
    while True:
        try:
            return socket.create_server(("", port), family=family, dualstack_ipv6=dual)
        except OSError as error:
            if time.monotonic() > deadline:
                message = f"process 0 cannot listen on port {port}: {error.strerror}; "
                message += "give all processes another coordinator port"
                raise Fault(message, WATCHDOG) from error
        time.sleep(RETRY_INTERVAL)


def _free_port() -> int:
    with socket.create_server(("", 0)) as probe:
        return probe.getsockname()[1]


def _missing(
    coordinator: str, processes: int, connected: set[int], timeout: float
) -> dict[str, Any]:
    absent = sorted(set(range(processes)) - connected)
    numbers = ", ".join(map(str, absent[:20])) + (", ..." if len(absent) > 20 else "")
    error = f"waited {timeout:g} s at {coordinator}: {len(absent)} of {processes} processes "
    error += f"missing: {numbers}. Check their logs and whether they can reach this address"
    return {"error": error, "code": WATCHDOG}


def _greet(
    coordinator: str, process: int, attempt: str, deadline: float, timeout: float
) -> dict[str, Any]:
    """Sends the greeting to process 0, with retries, and waits for its answer."""
    host, _, port = coordinator.rpartition(":")
    address = (host.strip("[]"), int(port))
    greeting = {"process": process, "host": socket.gethostname(), "attempt": attempt}
    refusal: dict[str, Any] = {}
    while (left := deadline - time.monotonic()) > 0:
        with contextlib.suppress(OSError), socket.create_connection(address, left) as connection:
            connection.sendall(json.dumps(greeting).encode() + b"\n")
            try:
                # Process 0 may have started later; its timeout then ends later.
                answer = _read_line(connection, left + timeout, MAX_ANSWER)
                if answer and not answer.get("retry"):
                    return answer
                refusal = answer  # of another attempt, whose place this one may take
            except Fault as fault:  # a signal arrived
                farewell = {"stops": str(fault), "code": fault.code}
                connection.sendall(json.dumps(farewell).encode() + b"\n")
                raise
        time.sleep(RETRY_INTERVAL)
    if refusal:
        return refusal
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
