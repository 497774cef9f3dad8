"""launch/local.sh with tiny programs: environment, prefix, codes, signals, others' end."""

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
    found = re.findall(r"^\[(\d)\] (\{.*\})$", done.stdout, re.MULTILINE)
    return {int(process): ast.literal_eval(text) for process, text in found}


SHOW = "print({k: v for k, v in os.environ.items() if k.startswith(('SSL_JAX', 'JAX', 'CUDA'))})"


def test_every_process_gets_its_environment_and_the_arguments_as_they_are():
    done, _ = local(SHOW + "; print(sys.argv[1:])", "a  b", "", "$c'd", options=("-d", "4"))
    assert done.returncode == 0, done.stderr
    found = environments(done)
    assert found.keys() == {0, 1}
    for process, environment in found.items():
        assert environment["SSL_JAX_PROCESS"] == str(process)
        assert environment["SSL_JAX_PROCESSES"] == "2"
        assert environment["JAX_NUM_CPU_DEVICES"] == "4"
        assert re.fullmatch(r"127\.0\.0\.1:\d+", environment["SSL_JAX_COORDINATOR"])
        assert f"[{process}] ['a  b', '', \"$c'd\"]" in done.stdout
    assert found[0]["SSL_JAX_COORDINATOR"] == found[1]["SSL_JAX_COORDINATOR"]


@pytest.mark.parametrize("given", ["4,5,6,7", ""])
def test_gpus_are_divided(given, tmp_path):
    programs = standins.Standins(tmp_path)
    programs.put("nvidia-smi", "print('4\\n5\\n6\\n7')")
    environment = {k: v for k, v in programs.environment.items() if k != "JAX_PLATFORMS"}
    environment["CUDA_VISIBLE_DEVICES"] = given
    done, _ = local(SHOW, environment=environment)
    shares = {p: found["CUDA_VISIBLE_DEVICES"] for p, found in environments(done).items()}
    assert shares == {0: "4,5", 1: "6,7"}
    done, _ = local(SHOW, processes=3, environment=environment)
    assert done.returncode == 64
    assert "4 GPUs cannot be divided among 3" in done.stderr


# Process 0 ends once the script has noticed that process 1 did.
AFTER = "while 'process 1 ended' not in open(sys.argv[1]).read(): time.sleep(0.05)\n"


@pytest.mark.parametrize(
    ("first", "then", "code"),
    [
        # The cause, and what follows from it: a peer that aborts, or that says it was stopped.
        ("sys.exit(78)", "os.abort()", 78),
        ("os.kill(os.getpid(), 9)", "sys.exit(1)", 137),
        ("os.kill(os.getpid(), 9)", "sys.exit(75)", 137),
        ("sys.exit(75)", "sys.exit(75)", 75),
        ("sys.exit(75)", "sys.exit(74)", 74),
    ],
)
def test_the_exit_code_is_the_cause(first, then, code, tmp_path):
    program = f"{BEGIN}if process == 1: {first}\n{AFTER}{then}"
    log = tmp_path / "log"
    script = standins.LAUNCH / "local.sh"
    command = [script, "-n", "2", "--", sys.executable, "-c", program, log]
    with open(log, "w") as stderr:
        done = subprocess.run(command, env=CPU, stderr=stderr, timeout=60)
    assert done.returncode == code


@pytest.mark.parametrize("abort", [0, 1])
def test_of_two_that_end_in_one_moment_the_one_that_says_why_counts(abort):
    program = (
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})\n"
        "print(os.getpid(), flush=True); signal.sigwait({signal.SIGUSR1})\n"
        f"os.abort() if process == {abort} else sys.exit(80)"
    )
    script = standins.LAUNCH / "local.sh"
    command = [script, "-n", "2", "--", sys.executable, "-c", BEGIN + program]
    with subprocess.Popen(command, env=CPU, stdout=subprocess.PIPE, text=True) as running:
        pids = [int(running.stdout.readline().split()[1]) for _ in range(2)]
        running.send_signal(signal.SIGSTOP)  # the script sees nothing until both have ended
        for pid in pids:
            os.kill(pid, signal.SIGUSR1)
        deadline = time.monotonic() + 30
        while not all(state(pid) in "Z" for pid in pids):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        running.send_signal(signal.SIGCONT)
        assert running.wait(30) == 80


def state(pid):
    """One letter of Linux for what a process does; "" for one that is gone."""
    stat = pathlib.Path("/proc", str(pid), "stat")
    return stat.read_text().split()[2] if stat.exists() else ""


def test_the_others_get_time_and_are_then_killed_with_their_children(tmp_path):
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
def test_signals_reach_every_process_once_and_all_are_waited_for(number):
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
        "signal.signal(15, lambda *_: (print('told', flush=True), sys.exit(75)))\n"
        "print('ready', flush=True); time.sleep(100)"
    )
    command = [standins.LAUNCH / "local.sh", "-n", "2", "--", sys.executable, "-c", BEGIN + program]
    environment = programs.environment | CPU | {"PATH": programs.environment["PATH"]}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout.readline() == "[0] ready\n"
        running.send_signal(signal.SIGTERM)
        rest = running.communicate(timeout=30)[0]
    assert "[0] told" in rest
    assert running.returncode in (75, 143)  # the second may have been told before it could listen


def test_what_asks_for_stacks_ends_neither_the_script_nor_what_reads(tmp_path):
    """As a supervisor does: to all processes of the session."""
    program = (
        "import faulthandler; faulthandler.register(signal.SIGUSR1, file=open(sys.argv[1], 'w'))\n"
        "signal.signal(15, lambda *_: (print('told', flush=True), sys.exit(75)))\n"
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
        supervisor._send_all(running.pid, signal.SIGUSR1)
        time.sleep(0.5)
        running.send_signal(signal.SIGTERM)
        rest = running.communicate(timeout=30)[0]
    assert (rest, running.returncode) == ("[0] told\n", 75)
    assert "line 5 in <module>" in (tmp_path / "stacks").read_text()
