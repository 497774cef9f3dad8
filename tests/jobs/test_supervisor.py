"""The supervisor, with shell scripts instead of training commands."""

import errno
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from ssl_jax import supervise
from ssl_jax.jobs import heartbeat, progress, run_history, supervisor

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Every attempt counts itself in the file `attempts` and writes a checkpoint of that step.
SAVING = """
n=$(($(cat attempts 2>/dev/null || echo 0) + 1)); echo $n > attempts
mkdir -p run/checkpoints/$n; touch run/checkpoints/$n/MANIFEST.json
"""


def start(folder, script, *flags, argument="--workdir=run"):
    command = [sys.executable, "-m", "ssl_jax.supervise", "--max_backoff=0.05", *flags]
    return subprocess.Popen(
        [*command, "--", "sh", "-c", script, "sh", argument],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )


def run(folder, script, *flags, **options):
    process = start(folder, script, *flags, **options)
    return process, process.communicate(timeout=30)[1]


def wait_for(path):
    deadline = time.monotonic() + 20
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert path.exists()


@pytest.mark.parametrize("end", ["exit 75", "exit 81", "exit 134", "kill -9 $$", "kill -11 $$"])
def test_the_command_is_restarted_until_it_is_done(tmp_path, end):
    process, messages = run(tmp_path, f"{SAVING} [ $n -lt 6 ] || exit 0; {end}")
    assert process.returncode == 0
    assert (tmp_path / "attempts").read_text().strip() == "6"  # each attempt wrote a checkpoint
    assert messages.count("starting again") == 5
    assert "step 5 is saved; starting again in 0.0" in messages


@pytest.mark.parametrize("code", [0, 1, 64, 65, 66, 73, 74, 76, 78, 80, 82, 130])
def test_other_exit_codes_are_passed_on_at_once(tmp_path, code):
    process, messages = run(tmp_path, f"{SAVING} exit {code}")
    assert process.returncode == code
    assert (tmp_path / "attempts").read_text().strip() == "1"
    why = "interrupted by Ctrl-C" if code == 130 else "see its message"
    said = f"supervise: COMMAND ended with exit code {code}: {why}; it is not started again"
    assert messages.splitlines() == ([said] if code else [])


def test_it_gives_up_after_three_restarts_without_a_new_checkpoint(tmp_path):
    # Attempts 1 and 2 save. Attempts 3 to 5 are three restarts in a row without a checkpoint.
    script = """n=$(($(cat attempts 2>/dev/null || echo 0) + 1)); echo $n > attempts
    [ $n -gt 2 ] || { mkdir -p run/checkpoints/$n; touch run/checkpoints/$n/MANIFEST.json; }
    exit 81"""
    process, messages = run(tmp_path, script)
    assert process.returncode == 81
    assert (tmp_path / "attempts").read_text().strip() == "5"
    assert messages.splitlines()[-1] == (
        "supervise: exit code 81: its watchdog found it stuck; "
        "3 restarts brought no new checkpoint: giving up"
    )


def test_the_first_attempt_does_not_count_as_a_restart(tmp_path):
    process, messages = run(tmp_path, "echo x >> attempts; exit 75", argument="--other=run")
    assert process.returncode == 75
    assert (tmp_path / "attempts").read_text() == "x\n" * 4
    assert "COMMAND has no --workdir" in messages


def test_the_wait_doubles_up_to_the_maximum_and_is_shortened_at_random():
    one = supervisor.Supervisor(["true"], None, backoff=1.0, max_backoff=10.0)
    for restart, longest in enumerate([1, 2, 4, 8, 10, 10]):
        delays = [one._delay(restart) for _ in range(200)]
        assert longest / 2 <= min(delays) < 0.6 * longest
        assert 0.9 * longest < max(delays) <= longest


def test_a_signal_is_forwarded_and_the_exit_code_passed_on(tmp_path):
    script = "trap 'echo saved > saved; exit 75' TERM; touch up; while :; do sleep 0.05; done"
    process = start(tmp_path, script)
    wait_for(tmp_path / "up")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=10)
    assert process.returncode == 75
    assert (tmp_path / "saved").exists()


def test_a_request_for_stacks_is_forwarded(tmp_path):
    script = "trap 'echo stacks > stacks; exit 0' USR1; touch up; while :; do sleep 0.05; done"
    process = start(tmp_path, script)
    wait_for(tmp_path / "up")
    process.send_signal(signal.SIGUSR1)
    process.communicate(timeout=10)
    assert process.returncode == 0
    assert (tmp_path / "stacks").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has this request")
def test_the_command_is_stopped_when_its_supervisor_is_killed(tmp_path):
    script = "trap 'echo saved > saved; exit 75' TERM; touch up; while :; do sleep 0.05; done"
    process = start(tmp_path, script)
    wait_for(tmp_path / "up")
    process.kill()
    process.communicate(timeout=10)
    wait_for(tmp_path / "saved")


def test_the_third_signal_kills_the_command(tmp_path):
    script = "trap 'echo x >> got' TERM; touch up; while :; do sleep 0.05; done"
    process = start(tmp_path, script)
    wait_for(tmp_path / "up")
    for count in (1, 2):
        process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and _lines(tmp_path / "got") < count:
            time.sleep(0.01)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert "third signal" in process.communicate(timeout=10)[1]
    assert process.returncode == 137


def _lines(path):
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_a_signal_during_the_wait_ends_the_supervisor(tmp_path):
    command = [sys.executable, "-m", "ssl_jax.supervise", "--", "sh", "-c", "exit 75"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert "starting again" in process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=5) == 75
    process.stderr.close()


def test_a_stuck_command_writes_its_stacks_and_is_restarted(tmp_path):
    # The first attempt and its child sleep, and both must be killed. The second attempt exits.
    script = f"""{SAVING} [ $n -gt 1 ] && exit 0
    trap 'touch stacks' USR1
    set -m  # like launch/local.sh: the child has its own process group
    sleep 1000 & echo $! > child; wait; wait"""
    process, messages = run(tmp_path, script, "--stall=0.5")
    assert process.returncode == 0
    assert (tmp_path / "stacks").exists()
    assert "no sign of life for 0.5 s, step 1 is saved; starting again" in messages
    child = (tmp_path / "child").read_text().strip()
    state = subprocess.run(["ps", "-o", "stat=", "-p", child], capture_output=True, text=True)
    assert state.stdout.strip()[:1] in ("", "Z")  # "Z" if nothing reaps orphans
    attempts = json.loads((tmp_path / "run" / "goodput.json").read_text())["lives"]
    assert [attempt["code"] for attempt in attempts] == [81, 0]


def test_a_command_without_signs_of_life_is_not_stuck(tmp_path):
    process, messages = run(tmp_path, "mkdir -p run; sleep 1.2", "--stall=0.3")
    assert (process.returncode, messages) == (0, "")


def test_signs_of_life_and_manifests_include_the_runs_of_a_study(tmp_path):
    manifest = tmp_path / "runs" / "seed=0" / "checkpoints" / "5" / "MANIFEST.json"
    manifest.parent.mkdir(parents=True)
    manifest.touch()
    beat = tmp_path / "runs" / "seed=0" / heartbeat.FOLDER / "0.json"
    beat.parent.mkdir()
    beat.touch()
    assert progress.manifests(tmp_path) == {(str(manifest), manifest.stat().st_mtime_ns)}
    assert progress.last_sign_of_life(tmp_path, 0) == beat.stat().st_mtime


# The supervisor itself imports no JAX, but other tests of this process do.
@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")
def test_an_unavailable_file_server_does_not_end_the_supervisor(tmp_path, monkeypatch):
    def unavailable(*_):
        raise OSError(errno.ESTALE, "Stale file handle")

    for name in ("last_sign_of_life", "manifests", "saved_step", "is_run"):
        monkeypatch.setattr(progress, name, unavailable)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    command = ["sh", "-c", f"echo attempt >>{tmp_path}/attempts; exit 75"]
    one = supervisor.Supervisor(
        command, workdir=tmp_path, max_backoff=0.0, max_fruitless_restarts=1
    )
    assert one.run() == 75
    assert (tmp_path / "attempts").read_text() == "attempt\n" * 2


def test_a_heartbeat_keeps_a_slow_command_alive(tmp_path):
    script = """mkdir -p run/heartbeat
    for i in 1 2 3 4 5 6 7 8; do touch run/heartbeat/0.json; sleep 0.2; done"""
    process, messages = run(tmp_path, script, "--stall=0.8")
    assert (process.returncode, messages) == (0, "")


def test_goodput_of_a_timeline_computed_by_hand(tmp_path):
    # 0 to 100 s: 20 s start-up, 80 s for steps 1 to 40, of which 30 were saved; killed.
    # 10 s pause. 110 to 160 s: 10 s start-up, 36 s for steps 31 to 48, 1 s to save, 3 s to finish.
    attempts = [
        run_history.Attempt(1000, 1100, 137, "", 0, 40, 30, {"start": 20, "train": 80}),
        run_history.Attempt(1110, 1160, 0, "", 30, 48, 48, {"start": 10, "train": 36, "save": 1}),
    ]
    attempts[1].phases["finish"] = 3
    run_history.write(tmp_path, attempts)
    summary = json.loads((tmp_path / "goodput.json").read_text())
    assert summary["seconds"] == {
        "wall": 160,
        "kept_steps": 96,  # 30/40 of 80 s, and 36 s
        "training": 116,
        "start_up": 30,
        "other": 4,
        "stopped": 10,
    }
    assert summary["goodput"] == 0.6
    assert (summary["starts"], summary["kept_steps"], summary["lost_steps"]) == (2, 48, 10)
    assert run_history.read(tmp_path) == attempts


def test_process_0_continues_the_history_of_earlier_supervisors(tmp_path):
    for argument in ("--workdir=run", "--workdir=run", "--workdir run --process=1"):
        command = ["sh", "-c", SAVING, "sh", *argument.split()]
        subprocess.run(
            [sys.executable, "-m", "ssl_jax.supervise", "--", *command],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            check=True,
        )
    history = json.loads((tmp_path / "run" / "goodput.json").read_text())
    assert history["starts"] == 2
    assert [life["saved_step"] for life in history["lives"]] == [1, 2]


def test_saved_steps_stay_kept_if_the_last_attempt_is_killed_before_its_first_heartbeat():
    attempts = [
        run_history.Attempt(0, 9, 137, "", 0, 48, 40, {"train": 8}),
        run_history.Attempt(9, 10, 137),
    ]
    attempts[1].saved_step = 40
    assert run_history.summary(attempts)["kept_steps"] == 40


def test_a_study_gets_no_goodput_file(tmp_path):
    run(tmp_path, "mkdir -p run/runs/seed=0/checkpoints/1")
    assert not (tmp_path / "run" / "goodput.json").exists()


def test_an_attempt_ignores_the_heartbeat_of_an_earlier_one(tmp_path):
    beat = {"first_step": 2, "step": 9, "phases": {"train": 1.5}, "started": 0}
    (tmp_path / "run" / "heartbeat").mkdir(parents=True)
    path = tmp_path / "run" / "heartbeat" / "0.json"
    path.write_text(json.dumps(beat))
    run(tmp_path, "exit 0")
    fresh = json.dumps(beat | {"started": time.time() + 100})
    run(tmp_path, f"echo '{fresh}' > run/heartbeat/0.json")
    old, new = run_history.read(tmp_path / "run")
    assert (old.last_step, old.phases) == (0, {})
    assert (new.first_step, new.last_step, new.phases) == (2, 9, {"train": 1.5})


@pytest.mark.parametrize("command", ["train --process=3", "train --process 3"])
def test_option_reads_a_flag_of_the_command(command):
    assert supervise.option(command.split(), "process") == "3"
    assert supervise.option(["train"], "process") is None


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--", "no_such_command"], 66, "cannot start no_such_command"),
        (["--stall=soon", "--", "true"], 64, "--stall"),
        (["--stall=-1", "--", "true"], 64, "0 or more"),
        (["train"], 64, "'train': put COMMAND after --"),
        ([], 64, "COMMAND is missing"),
    ],
)
def test_usage_errors_exit_with_one_line(arguments, code, message):
    done = subprocess.run(
        [sys.executable, "-m", "ssl_jax.supervise", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == code
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_supervisor_imports_only_the_standard_library():
    code = "import sys, ssl_jax.supervise; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    tops = {name.split(".")[0] for name in done.stdout.split()}
    assert tops <= {*sys.stdlib_module_names, "ssl_jax", "__main__"}
