"""The watchdog: when it ends a process, what it leaves, what it tells the supervisor."""

import json
import os
import subprocess
import sys
import time

import pytest

from ssl_jax.errors import WATCHDOG
from ssl_jax.jobs.goodput import HEARTBEATS
from ssl_jax.jobs.watchdog import BUDGETS, SHORTEST, Watchdog


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def dog(tmp_path):
    """A watchdog whose thread does not run: the tests look themselves."""
    clock, said = Clock(), []
    dog = Watchdog(tmp_path, 3, clock=clock, end=said.append)
    (tmp_path / HEARTBEATS).mkdir()
    with open(tmp_path / HEARTBEATS / "3.stacks", "w") as dog._file:
        dog.clock, dog.said = clock, said
        yield dog


def test_a_step_may_take_a_minute_or_ten_medians(dog):
    for step in range(1, 12):
        dog.clock.now += 20.0
        dog.step(step)
    dog.clock.now += 199.0
    dog.look()
    assert not dog.said
    dog.clock.now += 2.0
    dog.look()
    assert "process 3 is stuck: no step for 201 s, after step 11" in dog.said[0]
    assert "3.stacks" in dog.said[0]


def test_short_steps_have_a_minute(dog):
    for step in range(1, 5):
        dog.clock.now += 0.1
        dog.step(step)
    dog.clock.now += SHORTEST
    dog.look()
    assert not dog.said
    dog.clock.now += 0.1
    dog.look()
    assert dog.said


def test_before_a_second_step_nothing_tells_how_long_one_takes(dog):
    dog.begin(0)
    dog.clock.now = 200.0  # compilation and the first step
    dog.step(1)
    dog.clock.now += BUDGETS["start"]
    dog.look()
    assert not dog.said
    dog.clock.now += 1.0
    dog.look()
    assert "no step for 3601 s, after step 1" in dog.said[0]


@pytest.mark.parametrize("phase", ["start", "save", "finish"])
def test_what_has_no_steps_has_a_budget(dog, phase):
    dog.enter(phase)
    dog.clock.now += BUDGETS[phase]
    dog.look()
    assert not dog.said
    dog.clock.now += 1
    dog.look()
    assert f"{phase} not done for {BUDGETS[phase] + 1:.0f} s" in dog.said[0]


def test_the_time_of_a_save_is_no_steps(dog, tmp_path):
    dog.clock.now = 7.0
    dog.begin(40)
    dog.step(41)
    dog.clock.now += 2.0
    dog.step(42)
    with dog.saving():
        dog.clock.now += 100.0
        dog.look()
    dog.clock.now += 1.0
    dog.step(43)
    dog.write()
    assert not dog.said
    assert dog._window() == SHORTEST
    beat = json.loads((tmp_path / HEARTBEATS / "3.json").read_text())
    assert (beat["first_step"], beat["step"], beat["pid"]) == (40, 43, os.getpid())
    assert beat["phases"] == {"start": 7.0, "train": 3.0, "save": 100.0}


def test_a_full_disk_does_not_keep_a_stuck_process_alive(dog):
    dog._file.close()
    with open("/dev/full", "w") as dog._file:
        dog.step(1)
        dog.step(2)
        dog.clock.now += SHORTEST + 1
        dog.look()
        assert dog.said
        os.dup2(os.open(os.devnull, os.O_WRONLY), dog._file.fileno())


STUCK = """
import sys, time
from ssl_jax import watchdog
watchdog.SHORTEST = 0.5
watchdog.LOOK = 0.1
with watchdog.Watchdog(sys.argv[1]) as dog:
    dog.step(5)
    dog.step(6)
    time.sleep(60)
"""


def test_a_stuck_process_ends_with_its_stacks_on_disk(tmp_path):
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", STUCK, str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == WATCHDOG
    assert time.monotonic() - start < 30
    assert "process 0 is stuck: no step for" in done.stderr
    assert "after step 6" in done.stderr
    stacks = tmp_path / HEARTBEATS / "0.stacks"
    assert 'File "<string>", line 9' in stacks.read_text()
    with Watchdog(tmp_path):  # the next life
        pass
    assert 'File "<string>", line 9' in stacks.read_text()


def test_a_stuck_process_ends_also_where_nobody_reads_what_it_says(tmp_path):
    read, written = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-c", STUCK, str(tmp_path)], stderr=written, timeout=30)
    assert done.returncode == WATCHDOG
