"""Stopping on a signal: the step that processes agree on, and one process in every phase."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from ssl_jax.errors import INTERRUPTED, STOPPED_EARLY, USAGE, Fault
from ssl_jax.jobs.coordination import LostProcesses
from ssl_jax.jobs.stop import FINISH, NOW, START, TRAIN, Stop, common_step


@pytest.mark.parametrize(
    ("reports", "step"),
    [
        ([(TRAIN, 7), (TRAIN, 7)], 8),
        ([(TRAIN, 7), (TRAIN, 9), (TRAIN, 8)], 10),
        # A process that still compiles has nothing to save, and the others cannot continue alone.
        ([(TRAIN, 0), (START, 0)], NOW),
        ([(FINISH, 20), (FINISH, 20)], NOW),
        # One process has finished training: all train to the end.
        ([(TRAIN, 19), (FINISH, 20)], 21),
    ],
)
def test_common_step_is_the_first_one_that_no_process_has_reached(reports, step):
    assert common_step(reports) == step


def send(number=signal.SIGTERM):
    os.kill(os.getpid(), number)


def two_signals_in_training():
    with Stop() as stop, stop.deferred():
        assert not stop.should_stop(1)
        send()
        send()  # ignored, with a message
        assert stop.should_stop(2)
        raise stop.fault("saved step 2")


def signal_before_training():
    with Stop():
        send(signal.SIGINT)
        time.sleep(1)


def signal_during_an_import_that_raises_its_own_error():
    with Stop():
        try:
            send()
            time.sleep(1)
        except Fault as fault:
            raise ImportError("Encountered an error while initializing the extension") from fault


def signal_during_code_that_raises_its_own_fault():
    with Stop():
        try:
            send()
            time.sleep(1)
        except Exception as error:
            raise Fault(f"a cluster was detected, but {error}", USAGE) from error


def signal_in_the_last_step():
    with Stop() as stop, stop.deferred():
        assert not stop.should_stop(1)
        send()
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("case", "code", "message"),
    [
        (two_signals_in_training, STOPPED_EARLY, "SIGTERM: saved step 2"),
        (signal_before_training, INTERRUPTED, "SIGINT: nothing new to save"),
        (signal_during_an_import_that_raises_its_own_error, STOPPED_EARLY, "SIGTERM: nothing new"),
        (signal_during_code_that_raises_its_own_fault, STOPPED_EARLY, "SIGTERM: nothing new"),
        (signal_in_the_last_step, STOPPED_EARLY, "SIGTERM: all steps are saved"),
    ],
)
def test_a_signal_stops_one_process_in_every_phase(case, code, message):
    with pytest.raises(Fault, match=f"^{message}.*; run the same command again") as error:
        case()
    assert error.value.code == code


COMPILING = """
import ctypes
from ssl_jax.jobs import stop
stop.HANDLER_TIMEOUT = 0.5
mutex, libc = ctypes.create_string_buffer(64), ctypes.CDLL(None)
with stop.Stop() as s, s.deferred():
    print("compiling", flush=True)
    libc.pthread_mutex_lock(mutex)
    libc.pthread_mutex_lock(mutex)  # blocks forever
"""


SWALLOWED = """
import time
from ssl_jax.jobs import stop
stop.HANDLER_TIMEOUT = 0.5
with stop.Stop():
    try:
        print("importing", flush=True)
        time.sleep(10)
    except Exception:
        pass  # like the guard around an optional import
    time.sleep(15)
"""


@pytest.mark.parametrize("script", [COMPILING, SWALLOWED])
def test_a_signal_ends_a_command_whose_main_thread_does_not_react(script):
    """The main thread is blocked in C, as in XLA's compiler, so that no Python handler runs; or an
    `except` swallows the Fault that the handler raises."""
    child = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert child.stdout.readline() in (b"compiling\n", b"importing\n")
    child.send_signal(signal.SIGTERM)
    _, stderr = child.communicate(timeout=10)
    assert child.returncode == STOPPED_EARLY
    assert stderr == b"ssl_jax: SIGTERM: nothing new to save; run the same command again\n"


LONG_STEP = """
import ctypes, time
from ssl_jax.jobs import stop
stop.HANDLER_TIMEOUT = 0.2
class Time(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]
mutex, libc = ctypes.create_string_buffer(64), ctypes.CDLL(None)
libc.pthread_mutex_lock(mutex)
with stop.Stop() as s, s.deferred():
    assert not s.should_stop(499)
    print("step 500", flush=True)
    # Blocks in C during signals, like a main thread that waits for a device.
    libc.pthread_mutex_timedlock(mutex, ctypes.byref(Time(int(time.time()) + 3)))
    if s.should_stop(500):
        raise s.fault("saved step 500")
"""


def test_a_long_step_is_finished_and_saved():
    child = subprocess.Popen(
        [sys.executable, "-c", LONG_STEP], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert child.stdout.readline() == b"step 500\n"
    child.send_signal(signal.SIGTERM)
    _, stderr = child.communicate(timeout=20)
    assert b"Fault: SIGTERM: saved step 500; run the same command again" in stderr


SAVING = """
import os, signal, time
from ssl_jax.jobs import stop
with stop.Stop() as s, s.deferred():
    s.should_stop(1)
    for _ in range(3):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)
    print("saved")
"""


def test_a_third_signal_aborts_a_save():
    done = subprocess.run([sys.executable, "-c", SAVING], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (INTERRUPTED, "")
    second, third = done.stderr.splitlines()
    assert second == "ssl_jax: saving; this signal is ignored, a third one aborts"
    assert third == "ssl_jax: third signal: aborting"


class FakeJob:
    """A job of two processes, in which this one is number 0."""

    process, count = 0, 2

    def __init__(self):
        self.exit_announced = False

    def announce_exit(self, lost=()):
        self.exit_announced = True

    def barrier(self, name):
        raise LostProcesses([1])


class SlowCheckpoints:
    """A checkpoint writer whose last save is still running."""

    done = False

    def wait(self):
        time.sleep(0.5)
        self.done = True

    def latest_step(self):
        return 40 if self.done else 30


@pytest.fixture
def stopping(monkeypatch):
    """A `Stop` in a job of two processes, its checkpoints, and the list of its (message, code) on
    exit."""
    exits = []

    def record_exit(message, code):
        exits.append((message, code))

    monkeypatch.setattr("ssl_jax.jobs.stop._exit", record_exit)
    monkeypatch.setattr("ssl_jax.jobs.stop.HANDLER_TIMEOUT", 0.6)
    stop = Stop()
    stop._job, stop._checkpoints = FakeJob(), SlowCheckpoints()
    return stop, stop._checkpoints, exits


def test_process_0_finishes_a_save_before_it_follows_a_failed_process(stopping):
    stop, checkpoints, exits = stopping
    stop._follow_failure(1, 65)
    assert checkpoints.done
    message = "process 1 ended with exit code 65; see its message for the cause"
    assert exits == [(message, 65)]


def test_a_process_that_fails_by_itself_follows_no_other_failure(stopping):
    stop, _, exits = stopping
    stop._detached = True  # its main thread ends it, with its own message
    stop._follow_failure(1, 80)
    assert not exits
    assert not stop._job.exit_announced


def test_a_process_that_waits_at_the_end_names_a_lost_process(stopping, monkeypatch):
    stop, _, exits = stopping
    monkeypatch.setattr(stop._job, "disconnect", lambda: None, raising=False)
    stop._end_together(None)
    assert [code for _, code in exits] == [STOPPED_EARLY]
    assert exits[0][0].startswith("process 1 of 2 gone: no sign of life")


def test_a_process_that_waits_at_the_end_is_silent_while_its_thread_exits(stopping):
    """The thread closes the connection, which makes the main thread's barrier fail."""
    stop, _, exits = stopping
    stop._blocked = True
    waiting = threading.Thread(target=stop._end_together, args=(None,), daemon=True)
    waiting.start()
    waiting.join(0.7)
    assert waiting.is_alive()
    assert not exits


def test_the_message_about_a_lost_process_names_the_step_of_a_running_save(stopping):
    stop, _, exits = stopping
    stop._exit_without([1])
    message = "process 1 of 2 gone: no sign of life; step 40 is saved; run the same command again"
    assert exits == [(message, STOPPED_EARLY)]


ENDING = """
import os, signal
from ssl_jax.jobs import stop
with stop.Stop(ignore_signals_after=True):
    pass
os.kill(os.getpid(), signal.SIGTERM)
os.kill(os.getpid(), signal.SIGINT)
print("done")
"""


def test_signals_do_not_change_the_exit_code_of_a_finished_command():
    done = subprocess.run([sys.executable, "-c", ENDING], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def test_the_old_signal_handlers_are_restored():
    before = signal.getsignal(signal.SIGTERM)
    with Stop():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before
