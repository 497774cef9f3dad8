"""launch/local.sh with small programs: environment, output, exit codes, signals, clean-up."""

import ast
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
import standins

from ssl_jax.jobs import supervisor

CPU = os.environ | {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
BEGIN = "import os, sys, time, signal; process = int(os.environ['SSL_JAX_PROCESS'])\n"


def local(program, *arguments, processes=2, options=(), environment=CPU):
    started = time.monotonic()
    done = standins.launch(
        *("local.sh", "-n", str(processes), *options, "--", sys.executable, "-c"),
        *(BEGIN + program, *arguments),
        environment=environment,
    )
    return done, time.monotonic() - started


def environments(done):
    matches = re.findall(r"^\[(\d)\] (\{.*\})$", done.stdout, re.MULTILINE)
    return {int(process): ast.literal_eval(text) for process, text in matches}


SHOW = "print({k: v for k, v in os.environ.items() if k.startswith(('SSL_JAX', 'JAX', 'CUDA'))})"


def test_every_process_gets_its_environment_and_unchanged_arguments():
    done, _ = local(SHOW + "; print(sys.argv[1:])", "a  b", "", "$c'd", options=("-d", "4"))
    assert done.returncode == 0, done.stderr
    by_process = environments(done)
    assert by_process.keys() == {0, 1}
    for process, environment in by_process.items():
        assert environment["SSL_JAX_PROCESS"] == str(process)
        assert environment["SSL_JAX_PROCESSES"] == "2"
        assert environment["JAX_NUM_CPU_DEVICES"] == "4"
        assert re.fullmatch(r"127\.0\.0\.1:\d+", environment["SSL_JAX_COORDINATOR"])
        assert f"[{process}] ['a  b', '', \"$c'd\"]" in done.stdout
    assert by_process[0]["SSL_JAX_COORDINATOR"] == by_process[1]["SSL_JAX_COORDINATOR"]


@pytest.mark.parametrize("given", ["4,5,6,7", ""])
def test_gpus_are_split_among_the_processes(given, tmp_path):
    programs = standins.Standins(tmp_path)
    programs.put("nvidia-smi", "print('4\\n5\\n6\\n7')")
    environment = {k: v for k, v in programs.environment.items() if k != "JAX_PLATFORMS"}
    environment["CUDA_VISIBLE_DEVICES"] = given
    done, _ = local(SHOW, environment=environment)
    shares = {p: variables["CUDA_VISIBLE_DEVICES"] for p, variables in environments(done).items()}
    assert shares == {0: "4,5", 1: "6,7"}
    done, _ = local(SHOW, processes=3, environment=environment)
    assert done.returncode == 64
    assert "4 GPUs cannot be split evenly among 3" in done.stderr


# Process 0 ends once the script has reported the end of process 1.
AFTER = "while 'process 1 ended' not in open(sys.argv[1]).read(): time.sleep(0.05)\n"


@pytest.mark.parametrize(
    ("process_1", "process_0", "code"),
    [
        # The cause and its consequence: another process that aborts, or one that was stopped.
        ("sys.exit(78)", "os.abort()", 78),
        ("os.kill(os.getpid(), 9)", "sys.exit(1)", 137),
        ("os.kill(os.getpid(), 9)", "sys.exit(75)", 137),
        ("sys.exit(75)", "sys.exit(75)", 75),
        ("sys.exit(75)", "sys.exit(74)", 74),
    ],
)
def test_the_exit_code_is_that_of_the_cause(process_1, process_0, code, tmp_path):
    program = f"{BEGIN}if process == 1: {process_1}\n{AFTER}{process_0}"
    log = tmp_path / "log"
    script = standins.LAUNCH / "local.sh"
    command = [script, "-n", "2", "--", sys.executable, "-c", program, log]
    with open(log, "w") as stderr:
        done = subprocess.run(command, env=CPU, stderr=stderr, timeout=60)
    assert done.returncode == code


@pytest.mark.parametrize("abort", [0, 1])
def test_at_the_same_time_an_exit_code_of_the_program_wins_over_a_signal(abort):
    program = (
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})\n"
        "print(os.getpid(), flush=True); signal.sigwait({signal.SIGUSR1})\n"
        f"os.abort() if process == {abort} else sys.exit(80)"
    )
    script = standins.LAUNCH / "local.sh"
    command = [script, "-n", "2", "--", sys.executable, "-c", BEGIN + program]
    with subprocess.Popen(command, env=CPU, stdout=subprocess.PIPE, text=True) as running:
        pids = [int(running.stdout.readline().split()[1]) for _ in range(2)]
        running.send_signal(signal.SIGSTOP)  # the script runs again only after both have ended
        for pid in pids:
            os.kill(pid, signal.SIGUSR1)
        deadline = time.monotonic() + 30
        while not all(state(pid) in "Z" for pid in pids):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        running.send_signal(signal.SIGCONT)
        assert running.wait(30) == 80


def state(pid):
    """Returns Linux's one-letter state of a process; "" if it does not exist."""
    stat = pathlib.Path("/proc", str(pid), "stat")
    return stat.read_text().split()[2] if stat.exists() else ""


def test_other_processes_are_killed_with_their_children_after_the_grace_time(tmp_path):
    program = (
        "import subprocess\n"
        "if process == 0: sys.exit(65)\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "if process == 1: time.sleep(1); print('saved', flush=True); sys.exit(75)\n"
        "child = subprocess.Popen(['sleep', '100'])\n"
        "with open(sys.argv[1], 'w') as file: file.write(str(child.pid))\n"
        "time.sleep(100)"
    )
    done, seconds = local(program, str(tmp_path / "child"), processes=3, options=("-g", "2"))
    assert done.returncode == 65
    assert "[1] saved" in done.stdout
    assert 2 <= seconds < 10
    assert "process 2 ended with code 137" in done.stderr
    assert state((tmp_path / "child").read_text()) in "Z"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_reach_every_process_once_and_the_script_waits_for_all(number):
    program = (
        "got = []\n"
        "for number in (2, 15): signal.signal(number, lambda n, _: got.append(n))\n"
        "print('ready', flush=True)\n"
        "while not got: time.sleep(0.05)\n"
        "time.sleep(0.5 + process); print('got', got, flush=True); sys.exit(75)"
    )
    script = standins.LAUNCH / "local.sh"
    command = [script, "-n", "2", "--", sys.executable, "-c", BEGIN + program]
    with subprocess.Popen(command, env=CPU, stdout=subprocess.PIPE, text=True) as running:
        lines = [running.stdout.readline(), running.stdout.readline()]
        assert sorted(lines) == ["[0] ready\n", "[1] ready\n"]
        running.send_signal(number)
        rest = running.communicate(timeout=30)[0]
    assert running.returncode == 75
    assert sorted(rest.splitlines()) == [f"[0] got [{number}]", f"[1] got [{number}]"]


def test_a_signal_between_two_starts_is_not_lost(tmp_path):
    programs = standins.Standins(tmp_path)
    real = shutil.which("mkfifo")
    # The second process is started a second after the first.
    programs.put("mkfifo", f"import os, time; time.sleep(1); os.execv({real!r}, call)")
    program = (
        "signal.signal(15, lambda *_: (print('stopping', flush=True), sys.exit(75)))\n"
        "print('ready', flush=True); time.sleep(100)"
    )
    command = [standins.LAUNCH / "local.sh", "-n", "2", "--", sys.executable, "-c", BEGIN + program]
    environment = programs.environment | CPU | {"PATH": programs.environment["PATH"]}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout.readline() == "[0] ready\n"
        running.send_signal(signal.SIGTERM)
        rest = running.communicate(timeout=30)[0]
    assert "[0] stopping" in rest
    assert running.returncode in (
        75,
        143,
    )  # 143 if the second got the signal before it set its handler


def test_the_request_for_stacks_kills_neither_the_script_nor_its_readers(tmp_path):
    """Sends SIGUSR1 to all processes of the session, like a supervisor."""
    program = (
        "import faulthandler; faulthandler.register(signal.SIGUSR1, file=open(sys.argv[1], 'w'))\n"
        "signal.signal(15, lambda *_: (print('stopping', flush=True), sys.exit(75)))\n"
        "print('ready', flush=True)\n"
        "while True: time.sleep(0.05)"
    )
    command = [standins.LAUNCH / "local.sh", "-n", "1", "--", sys.executable, "-c"]
    with subprocess.Popen(
        [*command, BEGIN + program, str(tmp_path / "stacks")],
        env=CPU,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as running:
        assert running.stdout.readline() == "[0] ready\n"
        supervisor._send_to_session(running.pid, signal.SIGUSR1)
        time.sleep(0.5)
        running.send_signal(signal.SIGTERM)
        rest = running.communicate(timeout=30)[0]
    assert (rest, running.returncode) == ("[0] stopping\n", 75)
    assert re.search(r"line [45] in <module>", (tmp_path / "stacks").read_text())
