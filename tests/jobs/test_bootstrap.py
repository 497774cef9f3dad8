"""Finding the job from flags, environment and clusters; the roll call over real sockets."""

import concurrent.futures
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from ssl_jax.errors import STOPPED_EARLY, USAGE, WATCHDOG, Fault
from ssl_jax.jobs import bootstrap, roll_call
from ssl_jax.jobs.bootstrap import SINGLE_PROCESS, JobSpec
from ssl_jax.jobs.stop import Stop

HOST = socket.gethostname()


@pytest.fixture
def address():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return f"127.0.0.1:{port}"


OURS = {"SSL_JAX_COORDINATOR": "b:2", "SSL_JAX_PROCESSES": "8", "SSL_JAX_PROCESS": "7"}
SKY = {
    "SKYPILOT_NODE_IPS": "10.0.0.4\n10.0.0.5\n",
    "SKYPILOT_NUM_NODES": "2",
    "SKYPILOT_NODE_RANK": "1",
    "SKYPILOT_TASK_ID": "managed-7-0",
    "SKYPILOT_INTERNAL_JOB_ID": "3",
}
SLURM = {
    "SLURM_JOB_ID": "42",
    "SLURM_STEP_NODELIST": "node[07,09-11]",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_NUM_NODES": "2",
}
OPENMPI = {
    "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1:34911",
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_RANK": "2",
    "OMPI_COMM_WORLD_LOCAL_RANK": "0",
}


@pytest.mark.parametrize(
    ("flags", "environment", "job"),
    [
        (("a:1", 4, 2), OURS | SLURM, JobSpec("a:1", 4, 2)),
        (("", 0, -1), OURS | SLURM | SKY, JobSpec("b:2", 8, 7)),
        (("", 0, -1), SKY, JobSpec("10.0.0.4:8476", 2, 1, attempt="managed-7-0/3")),
        (("", 0, -1), SKY | {"SKYPILOT_NUM_NODES": "1"}, SINGLE_PROCESS),
        (("", 0, -1), SLURM, JobSpec(f"node07:{65535 - 2**12 + 1 + 42}", 4, 3, [1])),
        (("", 0, -1), OPENMPI, JobSpec("10.96.0.1:62463", 4, 2, [0])),
        (("", 0, -1), SLURM | {"SLURM_NTASKS": "1"}, SINGLE_PROCESS),
        (("", 1, -1), OURS | SLURM, SINGLE_PROCESS),
        (("", 0, -1), SLURM | {"SSL_JAX_PROCESSES": "1"}, SINGLE_PROCESS),
        (("", 0, -1), {}, SINGLE_PROCESS),
    ],
)
def test_find_job_prefers_flags_then_environment_then_cluster(flags, environment, job, monkeypatch):
    for name, value in environment.items():  # JAX reads the process environment
        monkeypatch.setenv(name, value)
    actual = bootstrap.find_job(*flags, os.environ)
    if job.coordinator.startswith("10.96"):  # JAX derives the port from the job number
        actual = actual._replace(coordinator=job.coordinator)
    assert actual == job


@pytest.mark.parametrize(
    ("flags", "problems"),
    [
        (("a:1", 4, -1), ["--process='-1': must be the number of this process, 0 to 3"]),
        (("a:1", 4, 4), ["--process='4'"]),
        (("a", 0, 0), ["--coordinator='a': must be HOST:PORT", "--processes='0'"]),
    ],
)
def test_incomplete_job_flags_name_every_problem(flags, problems):
    with pytest.raises(Fault) as error:
        bootstrap.find_job(*flags, {})
    assert error.value.code == USAGE
    assert all(part in str(error.value) for part in problems)


def test_invalid_cluster_values_raise_a_fault(monkeypatch):
    for name, value in (SLURM | {"SLURM_NTASKS": "many"}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Fault, match="--processes=1 to run alone"):
        bootstrap.find_job("", 0, -1, os.environ)


def call_all(address, numbers, count, timeout):
    with concurrent.futures.ThreadPoolExecutor() as pool:
        calls = [pool.submit(roll_call.call, address, count, n, timeout=timeout) for n in numbers]
    return calls


def test_roll_call_returns_all_hosts_to_every_process(address):
    rolls = [call.result() for call in call_all(address, [2, 1, 0], 3, 20)]
    assert rolls == [([HOST] * 3, address)] * 3


def test_every_process_learns_which_processes_are_missing(address):
    for call in call_all(address, [2, 0], 4, 1):
        with pytest.raises(
            Fault, match=rf"waited 1 s at {address}: 2 of 4 processes missing: 1, 3"
        ):
            call.result()
        assert call.exception().code == WATCHDOG


def test_other_processes_report_a_missing_process_0(address):
    with pytest.raises(Fault, match=rf"process 0 does not answer process 1 at {address}"):
        roll_call.call(address, 2, 1, timeout=0.5)


def test_roll_call_refuses_two_processes_with_the_same_number(address):
    calls = call_all(address, [1, 1, 0], 3, 20)
    for call in calls:
        with pytest.raises(Fault, match=f"same number 1 of 3: on {HOST} and on {HOST}"):
            call.result()


def test_roll_call_ignores_foreign_connections_and_accepts_restarted_processes(address):
    with concurrent.futures.ThreadPoolExecutor() as pool:
        first = pool.submit(roll_call.call, address, 3, 0, timeout=20)
        for greeting in (
            b"GET / HTTP/1.1\r\n\r\n",
            b'{"process": 7}\n',
            b'{"process": true}\n',
            b"[]\n",
            b"[" * 4000 + b"\n",  # nested deeper than the JSON parser allows
            b'{"process": 1, "host": "' + b"x" * 5000 + b'"}\n',
        ):
            send(address, greeting)
        send(address, b'{"process": 1, "host": "died, and was started again"}\n')
        others = [pool.submit(roll_call.call, address, 3, n, timeout=20) for n in (1, 2)]
        assert [call.result().hosts for call in (first, *others)] == [[HOST] * 3] * 3


def test_an_older_attempt_is_refused_by_name_and_the_new_one_starts(address):
    def call(process, attempt, timeout):
        return roll_call.call(address, 2, process, timeout=timeout, attempt=attempt)

    with concurrent.futures.ThreadPoolExecutor() as pool:
        new = [pool.submit(call, 0, "job/2", 20)]
        old = pool.submit(call, 1, "job/1", 1)
        with pytest.raises(Fault) as error:
            old.result()
        new.append(pool.submit(call, 1, "job/2", 20))
        (hosts, coordinator), other = [call.result() for call in new]
    assert str(error.value) == (
        f"process 1 on {HOST} belongs to attempt 'job/1' of the job, but process 0 on {HOST} to "
        "attempt 'job/2'. Stop the older attempt"
    )
    assert error.value.code == WATCHDOG
    assert (hosts, coordinator) == other == ([HOST] * 2, coordinator)
    # Process 0 chose a port for JAX that the older attempt does not know.
    assert coordinator.startswith("127.0.0.1:")
    assert coordinator != address


def test_a_new_attempt_waits_until_the_older_one_leaves_the_port(address):
    with concurrent.futures.ThreadPoolExecutor() as pool:
        options = {"timeout": 20, "attempt": "job/2"}
        older = socket.create_server(("", int(address.split(":")[1])))
        calls = [pool.submit(roll_call.call, address, 2, n, **options) for n in (0, 1)]
        time.sleep(0.5)
        older.close()
        assert [call.result().hosts for call in calls] == [[HOST] * 2] * 2


def test_control_characters_in_host_names_are_escaped(address, monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "a\x1b[2J")
    for call in call_all(address, [1, 0], 2, 20):
        assert call.result().hosts == [r"'a\x1b[2J'"] * 2
    for call in call_all(address, [1, 1, 0], 3, 20):
        with pytest.raises(Fault) as error:
            call.result()
        assert str(error.value).isprintable()


@pytest.mark.parametrize("stopped", [0, 1])
def test_a_signal_before_all_processes_connect_stops_all(address, stopped):
    others = [number for number in (0, 1, 2) if number != stopped]  # process 3 never connects
    with concurrent.futures.ThreadPoolExecutor() as pool:
        calls = [pool.submit(roll_call.call, address, 4, n, timeout=20) for n in others]
        threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM)).start()
        with pytest.raises(Fault, match="SIGTERM: nothing new to save"), Stop():
            roll_call.call(address, 4, stopped, timeout=20)
    for call in calls:
        message = f"process {stopped} was stopped before all processes connected: SIGTERM"
        with pytest.raises(Fault, match=message) as error:
            call.result()
        assert error.value.code == STOPPED_EARLY


def send(address, text):
    host, port = address.split(":")
    deadline = time.monotonic() + 10
    while True:
        try:
            with socket.create_connection((host, int(port)), 5) as connection:
                connection.sendall(text)
                return
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_the_timeout_covers_a_whole_greeting_and_not_each_byte():
    ours, theirs = socket.socketpair()
    with ours, theirs, concurrent.futures.ThreadPoolExecutor() as pool:
        message = pool.submit(roll_call._read_line, ours, 0.5, 100)
        for letter in b'{"process": 1}':
            if message.done():
                break
            theirs.sendall(bytes([letter]))
            time.sleep(0.1)
        assert message.result() == {}


def test_a_taken_port_raises_a_fault(address):
    taken = socket.create_server(("", int(address.split(":")[1])))
    with taken, pytest.raises(Fault, match="give all processes another coordinator port") as error:
        roll_call.call(address, 2, 0, timeout=1)
    assert error.value.code == WATCHDOG  # retryable: launch/local.sh picks a new port per start


def test_one_process_of_two_exits_with_a_message_before_jax_aborts(tmp_path, address):
    done = subprocess.run(
        [
            *(sys.executable, "-m", "ssl_jax.train", "--config=configs/simclr.py:digits"),
            *(f"--workdir={tmp_path / 'run'}", f"--coordinator={address}", "--processes=2"),
            *("--process=0", "--start_timeout=1"),
        ],
        cwd=os.path.dirname(os.path.dirname(os.path.dirname(__file__))),
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )
    assert done.returncode == WATCHDOG
    assert "1 of 2 processes missing: 1" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run" / "config.json").exists()
