"""The watchdog: when it ends a process, the stacks and the heartbeat that it writes."""

import json
import os
import subprocess
import sys
import time

import pytest

from ssl_jax.errors import WATCHDOG
from ssl_jax.jobs import heartbeat
from ssl_jax.jobs.watchdog import MIN_STEP_TIMEOUT, PHASE_TIMEOUTS, Watchdog


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def dog(tmp_path):
    """A watchdog without its thread; the tests call `check` themselves."""
    clock, messages = Clock(), []
    dog = Watchdog(tmp_path, 3, clock=clock, end=messages.append)
    (tmp_path / heartbeat.FOLDER).mkdir()
    with open(tmp_path / heartbeat.FOLDER / "3.stacks", "w") as dog._file:
        dog.clock, dog.messages = clock, messages
        yield dog


def test_training_is_stuck_after_ten_median_steps(dog):
    for step in range(1, 12):
        dog.clock.now += 20.0
        dog.step(step)
    dog.clock.now += 199.0
    dog.check()
    assert not dog.messages
    dog.clock.now += 2.0
    dog.check()
    assert "process 3 is stuck: no step for 201 s, after step 11" in dog.messages[0]
    assert "3.stacks" in dog.messages[0]


def test_the_shortest_step_timeout_is_a_minute(dog):
    for step in range(1, 5):
        dog.clock.now += 0.1
        dog.step(step)
    dog.clock.now += MIN_STEP_TIMEOUT
    dog.check()
    assert not dog.messages
    dog.clock.now += 0.1
    dog.check()
    assert dog.messages


@pytest.mark.parametrize(("factor", "limit"), [(3.0, 180.0), (0.5, 30.0), (0.0, 1e9)])
def test_all_limits_are_multiplied_by_the_factor(dog, factor, limit):
    dog._factor = factor
    for step in (1, 2):
        dog.clock.now += 0.1
        dog.step(step)
    dog.clock.now += limit
    dog.check()
    assert not dog.messages
    dog.clock.now += 0.1
    dog.check()
    assert bool(dog.messages) == bool(factor)
    assert all("If it was only slow, raise --config.train.watchdog" in m for m in dog.messages)
    dog.messages.clear()
    dog.enter("save")
    dog.clock.now += factor * PHASE_TIMEOUTS["save"] - 0.1
    dog.check()
    assert not dog.messages


def test_until_a_second_step_the_timeout_is_that_of_the_start(dog):
    dog.begin(0)
    dog.clock.now = 200.0  # compilation and the first step
    dog.step(1)
    dog.clock.now += PHASE_TIMEOUTS["start"]
    dog.check()
    assert not dog.messages
    dog.clock.now += 1.0
    dog.check()
    assert "no step for 3601 s, after step 1" in dog.messages[0]


@pytest.mark.parametrize("phase", ["start", "save", "finish"])
def test_phases_without_steps_have_timeouts(dog, phase):
    dog.enter(phase)
    dog.clock.now += PHASE_TIMEOUTS[phase]
    dog.check()
    assert not dog.messages
    dog.clock.now += 1
    dog.check()
    assert f"{phase} not finished for {PHASE_TIMEOUTS[phase] + 1:.0f} s" in dog.messages[0]


def test_the_time_of_a_save_does_not_count_as_step_time(dog, tmp_path):
    dog.clock.now = 7.0
    dog.begin(40)
    dog.step(41)
    dog.clock.now += 2.0
    dog.step(42)
    with dog.saving():
        dog.clock.now += 100.0
        dog.check()
    dog.clock.now += 1.0
    dog.step(43)
    dog.write()
    assert not dog.messages
    assert dog._step_timeout() == MIN_STEP_TIMEOUT
    beat = json.loads((tmp_path / heartbeat.FOLDER / "3.json").read_text())
    assert (beat["first_step"], beat["step"], beat["pid"]) == (40, 43, os.getpid())
    assert beat["phases"] == {"start": 7.0, "train": 3.0, "save": 100.0}


def test_a_full_disk_does_not_keep_a_stuck_process_alive(dog):
    dog._file.close()
    with open("/dev/full", "w") as dog._file:
        dog.step(1)
        dog.step(2)
        dog.clock.now += MIN_STEP_TIMEOUT + 1
        dog.check()
        assert dog.messages
        os.dup2(os.open(os.devnull, os.O_WRONLY), dog._file.fileno())


STUCK = """
import sys, time
from ssl_jax.jobs import watchdog
watchdog.MIN_STEP_TIMEOUT = 0.5
watchdog.CHECK_INTERVAL = 0.1
with watchdog.Watchdog(sys.argv[1]) as dog:
    dog.step(5)
    dog.step(6)
    time.sleep(60)
"""


def test_a_stuck_process_exits_with_its_stacks_on_disk(tmp_path):
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", STUCK, str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == WATCHDOG
    assert time.monotonic() - began < 30
    assert "process 0 is stuck: no step for" in done.stderr
    assert "after step 6" in done.stderr
    stacks = tmp_path / heartbeat.FOLDER / "0.stacks"
    assert 'File "<string>", line 9' in stacks.read_text()
    with Watchdog(tmp_path):  # the next attempt
        pass
    assert 'File "<string>", line 9' in stacks.read_text()


def test_a_stuck_process_exits_even_if_nobody_reads_its_message(tmp_path):
    read, written = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-c", STUCK, str(tmp_path)], stderr=written, timeout=30)
    assert done.returncode == WATCHDOG
