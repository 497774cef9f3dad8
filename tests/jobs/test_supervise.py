"""The supervisor, over commands that only pretend: shell lines with exit codes."""

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
from ssl_jax.jobs import goodput, supervisor

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Every life writes its number to `lives` and a checkpoint of that step, then does `then`.
SAVING = """
n=$(($(cat lives 2>/dev/null || echo 0) + 1)); echo $n > lives
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
def test_it_starts_again_until_the_command_is_done(tmp_path, end):
    process, said = run(tmp_path, f"{SAVING} [ $n -lt 6 ] || exit 0; {end}")
    assert process.returncode == 0
    assert (tmp_path / "lives").read_text().strip() == "6"  # each brought a checkpoint
    assert said.count("starting again") == 5
    assert "step 5 is saved; starting again in 0.0" in said


@pytest.mark.parametrize("code", [0, 1, 64, 65, 66, 73, 74, 76, 78, 80, 82, 130])
def test_other_codes_are_passed_on_at_once(tmp_path, code):
    process, said = run(tmp_path, f"{SAVING} exit {code}")
    assert process.returncode == code
    assert (tmp_path / "lives").read_text().strip() == "1"
    assert not said


def test_it_gives_up_after_three_restarts_without_a_new_checkpoint(tmp_path):
    # Lives 1 and 2 save, 3 to 5 do not: these three, restarts all, are in a row.
    script = """n=$(($(cat lives 2>/dev/null || echo 0) + 1)); echo $n > lives
    [ $n -gt 2 ] || { mkdir -p run/checkpoints/$n; touch run/checkpoints/$n/MANIFEST.json; }
    exit 81"""
    process, said = run(tmp_path, script)
    assert process.returncode == 81
    assert (tmp_path / "lives").read_text().strip() == "5"
    assert said.splitlines()[-1] == (
        "supervise: exit code 81: its watchdog found it stuck; "
        "3 restarts brought no new checkpoint: giving up"
    )


def test_the_first_life_is_no_restart(tmp_path):
    process, said = run(tmp_path, "echo x >> lives; exit 75", argument="--other=run")
    assert process.returncode == 75
    assert (tmp_path / "lives").read_text() == "x\n" * 4
    assert "COMMAND names no --workdir" in said


def test_the_wait_doubles_up_to_the_most_and_is_shortened_at_random():
    here = supervisor.Supervisor(["true"], None, backoff=1.0, max_backoff=10.0)
    for barren, longest in enumerate([1, 2, 4, 8, 10, 10]):
        delays = [here._delay(barren) for _ in range(200)]
        assert longest / 2 <= min(delays) < 0.6 * longest
        assert 0.9 * longest < max(delays) <= longest


def test_a_signal_goes_to_the_command_whose_code_ends_both(tmp_path):
    script = "trap 'echo saved > saved; exit 75' TERM; touch up; while :; do sleep 0.05; done"
    process = start(tmp_path, script)
    wait_for(tmp_path / "up")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=10)
    assert process.returncode == 75
    assert (tmp_path / "saved").exists()


def test_the_third_signal_kills(tmp_path):
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


def test_a_signal_during_the_wait_ends_it(tmp_path):
    command = [sys.executable, "-m", "ssl_jax.supervise", "--", "sh", "-c", "exit 75"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert "starting again" in process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=5) == 75
    process.stderr.close()


def test_a_stuck_command_writes_its_stacks_and_is_started_again(tmp_path):
    # The second life ends; the first sleeps, and so does its child, which must go as well.
    script = f"""{SAVING} [ $n -gt 1 ] && exit 0
    trap 'touch stacks' USR1
    set -m  # as launch/local.sh: in a group of its own
    sleep 1000 & echo $! > child; wait; wait"""
    process, said = run(tmp_path, script, "--stall=0.5")
    assert process.returncode == 0
    assert (tmp_path / "stacks").exists()
    assert "no sign of life for 0.5 s, step 1 is saved; starting again" in said
    child = (tmp_path / "child").read_text().strip()
    state = subprocess.run(["ps", "-o", "stat=", "-p", child], capture_output=True, text=True)
    assert state.stdout.strip()[:1] in ("", "Z")  # the latter where nobody reaps orphans
    lives = json.loads((tmp_path / "run" / "goodput.json").read_text())["lives"]
    assert [life["code"] for life in lives] == [81, 0]


def test_a_command_that_never_showed_life_is_not_taken_for_stuck(tmp_path):
    process, said = run(tmp_path, "mkdir -p run; sleep 1.2", "--stall=0.3")
    assert (process.returncode, said) == (0, "")


def test_the_runs_of_a_study_show_its_life_and_progress(tmp_path):
    manifest = tmp_path / "runs" / "seed=0" / "checkpoints" / "5" / "MANIFEST.json"
    manifest.parent.mkdir(parents=True)
    manifest.touch()
    beat = tmp_path / "runs" / "seed=0" / goodput.HEARTBEATS / "0.json"
    beat.parent.mkdir()
    beat.touch()
    assert goodput.manifests(tmp_path) == {(str(manifest), manifest.stat().st_mtime_ns)}
    assert goodput.last_sign(tmp_path, 0) == beat.stat().st_mtime


def test_a_file_server_that_is_away_does_not_end_the_supervisor(tmp_path, monkeypatch):
    def away(*_):
        raise OSError(errno.ESTALE, "Stale file handle")

    for name in ("last_sign", "manifests", "saved_step", "is_run"):
        monkeypatch.setattr(goodput, name, away)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    command = ["sh", "-c", f"echo life >>{tmp_path}/lives; exit 75"]
    made = supervisor.Supervisor(command, workdir=tmp_path, max_backoff=0.0, patience=1)
    assert made.run() == 75
    assert (tmp_path / "lives").read_text() == "life\n" * 2


def test_a_heartbeat_keeps_a_slow_command_alive(tmp_path):
    script = """mkdir -p run/heartbeat
    for i in 1 2 3 4 5 6 7 8; do touch run/heartbeat/0.json; sleep 0.2; done"""
    process, said = run(tmp_path, script, "--stall=0.8")
    assert (process.returncode, said) == (0, "")


def test_goodput_of_a_timeline_worked_by_hand(tmp_path):
    # 0 to 100 s: 20 s of start, 80 s for steps 1 to 40, of which 30 were saved; killed.
    # 10 s pause. 110 to 160 s: 10 s of start, 36 s for steps 31 to 48, saved in 1 s, 3 s of finish.
    lives = [
        goodput.Life(1000, 1100, 137, "", 0, 40, 30, {"start": 20, "train": 80}),
        goodput.Life(1110, 1160, 0, "", 30, 48, 48, {"start": 10, "train": 36, "save": 1}),
    ]
    lives[1].phases["finish"] = 3
    goodput.write(tmp_path, lives)
    found = json.loads((tmp_path / "goodput.json").read_text())
    assert found["seconds"] == {
        "wall": 160,
        "kept_steps": 96,  # 30/40 of 80 s, and 36 s
        "training": 116,
        "start_up": 30,
        "other": 4,
        "stopped": 10,
    }
    assert found["goodput"] == 0.6
    assert (found["starts"], found["kept_steps"], found["lost_steps"]) == (2, 48, 10)
    assert goodput.read(tmp_path) == lives


def test_goodput_goes_on_over_supervisors_and_is_process_0s(tmp_path):
    for argument in ("--workdir=run", "--workdir=run", "--workdir run --process=1"):
        command = ["sh", "-c", SAVING, "sh", *argument.split()]
        subprocess.run(
            [sys.executable, "-m", "ssl_jax.supervise", "--", *command],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            check=True,
        )
    found = json.loads((tmp_path / "run" / "goodput.json").read_text())
    assert found["starts"] == 2
    assert [life["saved_step"] for life in found["lives"]] == [1, 2]


def test_steps_are_kept_whatever_the_last_life_came_to(tmp_path):
    """It was killed before its first heartbeat."""
    lives = [goodput.Life(0, 9, 137, "", 0, 48, 40, {"train": 8}), goodput.Life(9, 10, 137)]
    lives[1].saved_step = 40
    assert goodput.summary(lives)["kept_steps"] == 40


def test_a_study_has_no_goodput_of_its_own(tmp_path):
    run(tmp_path, "mkdir -p run/runs/seed=0/checkpoints/1")
    assert not (tmp_path / "run" / "goodput.json").exists()


def test_a_life_is_told_by_its_own_heartbeat_alone(tmp_path):
    beat = {"first_step": 2, "step": 9, "phases": {"train": 1.5}, "started": 0}
    (tmp_path / "run" / "heartbeat").mkdir(parents=True)
    path = tmp_path / "run" / "heartbeat" / "0.json"
    path.write_text(json.dumps(beat))
    run(tmp_path, "exit 0")
    fresh = json.dumps(beat | {"started": time.time() + 100})
    run(tmp_path, f"echo '{fresh}' > run/heartbeat/0.json")
    old, new = goodput.read(tmp_path / "run")
    assert (old.last_step, old.phases) == (0, {})
    assert (new.first_step, new.last_step, new.phases) == (2, 9, {"train": 1.5})


@pytest.mark.parametrize("command", ["train --process=3", "train --process 3"])
def test_a_flag_of_the_command_says_which_process_it_is(command):
    assert supervise.option(command.split(), "process") == "3"
    assert supervise.option(["train"], "process") is None


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--", "no_such_command"], 66, "cannot start no_such_command"),
        (["--stall=soon", "--", "true"], 64, "--stall"),
        (["--stall=-1", "--", "true"], 64, "0 or more"),
        (["train"], 64, "'train'; COMMAND stands behind --"),
        ([], 64, "which command?"),
    ],
)
def test_mistakes(arguments, code, says):
    found = subprocess.run(
        [sys.executable, "-m", "ssl_jax.supervise", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert found.returncode == code
    assert says in found.stderr
    assert len(found.stderr.splitlines()) == 1


def test_it_needs_nothing_but_the_standard_library():
    code = "import sys, ssl_jax.supervise; print(*sys.modules)"
    found = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    tops = {name.split(".")[0] for name in found.stdout.split()}
    assert tops <= {*sys.stdlib_module_names, "ssl_jax", "__main__"}
