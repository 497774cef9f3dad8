"""Who takes part in a job: flags, environment, clusters; the roll call, by real sockets."""

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
from ssl_jax.jobs.bootstrap import ALONE, Place
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
    ("flags", "environment", "place"),
    [
        (("a:1", 4, 2), OURS | SLURM, Place("a:1", 4, 2)),
        (("", 0, -1), OURS | SLURM | SKY, Place("b:2", 8, 7)),
        (("", 0, -1), SKY, Place("10.0.0.4:8476", 2, 1)),
        (("", 0, -1), SLURM, Place(f"node07:{65535 - 2**12 + 1 + 42}", 4, 3, [1])),
        (("", 0, -1), OPENMPI, Place("10.96.0.1:62463", 4, 2, [0])),
        (("", 0, -1), SLURM | {"SLURM_NTASKS": "1"}, ALONE),
        (("", 1, -1), OURS | SLURM, ALONE),
        (("", 0, -1), SLURM | {"SSL_JAX_PROCESSES": "1"}, ALONE),
        (("", 0, -1), {}, ALONE),
    ],
)
def test_flags_then_environment_then_cluster_then_alone(flags, environment, place, monkeypatch):
    for name, value in environment.items():  # JAX looks for clusters in the real one
        monkeypatch.setenv(name, value)
    found = bootstrap.find(*flags, os.environ)
    if place.coordinator.startswith("10.96"):  # JAX computes the port from the job's number
        found = found._replace(coordinator=place.coordinator)
    assert found == place


@pytest.mark.parametrize(
    ("flags", "wrong"),
    [
        (("a:1", 4, -1), ["--process='-1': which process this is, 0 to 3"]),
        (("a:1", 4, 4), ["--process='4'"]),
        (("a", 0, 0), ["--coordinator='a': HOST:PORT", "--processes='0'"]),
    ],
)
def test_an_incomplete_description_names_all_that_is_missing(flags, wrong):
    with pytest.raises(Fault) as caught:
        bootstrap.find(*flags, {})
    assert caught.value.code == USAGE
    assert all(part in str(caught.value) for part in wrong)


def test_a_cluster_that_says_nonsense_is_a_fault(monkeypatch):
    for name, value in (SLURM | {"SLURM_NTASKS": "many"}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Fault, match="--processes=1 to run alone"):
        bootstrap.find("", 0, -1, os.environ)


def call_all(address, numbers, count, timeout):
    with concurrent.futures.ThreadPoolExecutor() as pool:
        calls = [pool.submit(roll_call.call, address, count, n, timeout=timeout) for n in numbers]
    return calls


def test_all_learn_who_is_there(address):
    found = [call.result() for call in call_all(address, [2, 1, 0], 3, 20)]
    assert found == [[HOST] * 3] * 3


def test_the_missing_are_named_to_everyone(address):
    for call in call_all(address, [2, 0], 4, 1):
        with pytest.raises(
            Fault, match=rf"waited 1 s at {address}: of 4 processes 2 missing: 1, 3"
        ):
            call.result()
        assert call.exception().code == WATCHDOG


def test_without_process_0_the_others_say_so(address):
    with pytest.raises(Fault, match=rf"process 0 does not answer process 1 at {address}"):
        roll_call.call(address, 2, 1, timeout=0.5)


def test_two_processes_of_one_number_are_named(address):
    calls = call_all(address, [1, 1, 0], 3, 20)
    for call in calls:
        with pytest.raises(Fault, match=f"number 1 of 3: on {HOST} and on {HOST}"):
            call.result()


def test_strangers_and_those_who_come_again_do_not_disturb(address):
    with concurrent.futures.ThreadPoolExecutor() as pool:
        first = pool.submit(roll_call.call, address, 3, 0, timeout=20)
        for greeting in (
            b"GET / HTTP/1.1\r\n\r\n",
            b'{"process": 7}\n',
            b'{"process": true}\n',
            b"[]\n",
            b"[" * 4000 + b"\n",  # nested deeper than Python follows
            b'{"process": 1, "host": "' + b"x" * 5000 + b'"}\n',
        ):
            say(address, greeting)
        say(address, b'{"process": 1, "host": "died, and was started again"}\n')
        others = [pool.submit(roll_call.call, address, 3, n, timeout=20) for n in (1, 2)]
        assert [call.result() for call in (first, *others)] == [[HOST] * 3] * 3


@pytest.mark.parametrize("stopped", [0, 1])
def test_a_signal_before_all_have_met_stops_all(address, stopped):
    others = [number for number in (0, 1, 2) if number != stopped]  # the fourth never comes
    with concurrent.futures.ThreadPoolExecutor() as pool:
        calls = [pool.submit(roll_call.call, address, 4, n, timeout=20) for n in others]
        threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM)).start()
        with pytest.raises(Fault, match="SIGTERM: nothing new to save"), Stop():
            roll_call.call(address, 4, stopped, timeout=20)
    for call in calls:
        message = f"process {stopped} was stopped before all had met: SIGTERM"
        with pytest.raises(Fault, match=message) as told:
            call.result()
        assert told.value.code == STOPPED_EARLY


def say(address, text):
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


def test_a_greeting_has_seconds_for_the_whole_of_it():
    ours, theirs = socket.socketpair()
    with ours, theirs, concurrent.futures.ThreadPoolExecutor() as pool:
        found = pool.submit(roll_call._line, ours, 0.5, 100)
        for letter in b'{"process": 1}':
            if found.done():
                break
            theirs.sendall(bytes([letter]))
            time.sleep(0.1)
        assert found.result() == {}


def test_a_port_that_is_taken(address):
    taken = socket.create_server(("", int(address.split(":")[1])))
    with taken, pytest.raises(Fault, match="give all processes another coordinator port") as caught:
        roll_call.call(address, 2, 0, timeout=1)
    assert caught.value.code == WATCHDOG  # launch/local.sh takes another one at the next start


def test_a_lone_process_of_two_ends_by_name_before_jax_aborts(tmp_path, address):
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
    assert "of 2 processes 1 missing: 1" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run" / "config.json").exists()
