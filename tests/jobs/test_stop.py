"""Stopping by a signal: the step that processes agree on, and a single process in every phase."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from ssl_jax.errors import INTERRUPTED, STOPPED_EARLY, USAGE, Fault
from ssl_jax.jobs.peers import Gone
from ssl_jax.jobs.stop import FINISH, NOW, START, TRAIN, Stop, common_step


@pytest.mark.parametrize(
    ("said", "step"),
    [
        ([(TRAIN, 7), (TRAIN, 7)], 8),
        ([(TRAIN, 7), (TRAIN, 9), (TRAIN, 8)], 10),
        # Who is still compiling has nothing to save, and the others cannot go on without it.
        ([(TRAIN, 0), (START, 0)], NOW),
        ([(FINISH, 20), (FINISH, 20)], NOW),
        # One has left the training: all go to its end.
        ([(TRAIN, 19), (FINISH, 20)], 21),
    ],
)
def test_all_stop_at_the_first_step_that_none_has_reached(said, step):
    assert common_step(said) == step


def send(number=signal.SIGTERM):
    os.kill(os.getpid(), number)


def two_signals_in_training():
    with Stop() as stop, stop.gently():
        assert not stop.reached(1)
        send()
        send()  # ignored, with a message
        assert stop.reached(2)
        raise stop.fault("saved step 2")


def signal_before_training():
    with Stop():
        send(signal.SIGINT)
        time.sleep(1)


def signal_that_an_import_answers_by_its_own_error():
    with Stop():
        try:
            send()
            time.sleep(1)
        except Fault as fault:
            raise ImportError("Encountered an error while initializing the extension") from fault


def signal_that_becomes_the_fault_of_what_it_came_amid():
    with Stop():
        try:
            send()
            time.sleep(1)
        except Exception as error:
            raise Fault(f"a cluster was detected, but {error}", USAGE) from error


def signal_in_the_last_step():
    with Stop() as stop, stop.gently():
        assert not stop.reached(1)
        send()
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("case", "code", "told"),
    [
        (two_signals_in_training, STOPPED_EARLY, "SIGTERM: saved step 2"),
        (signal_before_training, INTERRUPTED, "SIGINT: nothing new to save"),
        (signal_that_an_import_answers_by_its_own_error, STOPPED_EARLY, "SIGTERM: nothing new"),
        (signal_that_becomes_the_fault_of_what_it_came_amid, STOPPED_EARLY, "SIGTERM: nothing new"),
        (signal_in_the_last_step, STOPPED_EARLY, "SIGTERM: all steps are saved"),
    ],
)
def test_one_process_is_stopped(case, code, told):
    with pytest.raises(Fault, match=f"^{told}.*; run the same command again") as caught:
        case()
    assert caught.value.code == code


COMPILING = """
import ctypes
from ssl_jax import stop
stop.ANSWER = 0.5
mutex, libc = ctypes.create_string_buffer(64), ctypes.CDLL(None)
with stop.Stop() as s, s.gently():
    print("compiling", flush=True)
    libc.pthread_mutex_lock(mutex)
    libc.pthread_mutex_lock(mutex)  # for ever
"""


SWALLOWED = """
import time
from ssl_jax import stop
stop.ANSWER = 0.5
with stop.Stop():
    try:
        print("importing", flush=True)
        time.sleep(10)
    except Exception:
        pass  # as around an optional import
    time.sleep(15)
"""


@pytest.mark.parametrize("script", [COMPILING, SWALLOWED])
def test_a_main_thread_that_does_not_answer_does_not_hold_the_command(script):
    """As in XLA's compiler, the main thread is in C and no handler of Python's runs; or some
    `except` takes what the handler raises."""
    child = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert child.stdout.readline() in (b"compiling\n", b"importing\n")
    child.send_signal(signal.SIGTERM)
    _, told = child.communicate(timeout=10)
    assert child.returncode == STOPPED_EARLY
    assert told == b"ssl_jax: SIGTERM: nothing new to save; run the same command again\n"


LONG_STEP = """
import ctypes, time
from ssl_jax import stop
stop.ANSWER = 0.2
class Time(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]
mutex, libc = ctypes.create_string_buffer(64), ctypes.CDLL(None)
libc.pthread_mutex_lock(mutex)
with stop.Stop() as s, s.gently():
    assert not s.reached(499)
    print("step 500", flush=True)
    # In C, whatever signals come, as the main thread is that waits for a device.
    libc.pthread_mutex_timedlock(mutex, ctypes.byref(Time(int(time.time()) + 3)))
    if s.reached(500):
        raise s.fault("saved step 500")
"""


def test_a_step_that_takes_long_is_awaited_and_saved():
    child = subprocess.Popen(
        [sys.executable, "-c", LONG_STEP], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert child.stdout.readline() == b"step 500\n"
    child.send_signal(signal.SIGTERM)
    _, told = child.communicate(timeout=20)
    assert b"Fault: SIGTERM: saved step 500; run the same command again" in told


SAVING = """
import os, signal, time
from ssl_jax import stop
with stop.Stop() as s, s.gently():
    s.reached(1)
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


class Peers:
    """Two processes, of which this is number 0."""

    process, count = 0, 2

    def __init__(self):
        self.left = False

    def leave(self, gone=()):
        self.left = True

    def meet(self, about):
        raise Gone([1])


class Saving:
    """Checkpoints of which one is still on its way."""

    done = False

    def wait(self):
        time.sleep(0.5)
        self.done = True

    def latest_step(self):
        return 40 if self.done else 30


@pytest.fixture
def left(monkeypatch):
    """[stop of several processes, its checkpoints, what it said when it left]."""
    said = []

    def leave(message, code):
        said.append((message, code))

    monkeypatch.setattr("ssl_jax.jobs.stop._exit", leave)
    monkeypatch.setattr("ssl_jax.jobs.stop.ANSWER", 0.6)
    stop = Stop()
    stop._peers, stop._checkpoints = Peers(), Saving()
    return stop, stop._checkpoints, said


def test_process_0_lets_a_save_end_before_it_follows_another(left):
    stop, saving, said = left
    stop._follow(1, 65)
    assert saving.done
    assert said == [("process 1 ended with exit code 65; its message says why", 65)]


def test_a_process_that_fails_by_itself_follows_no_other(left):
    stop, _, said = left
    stop._parted = True  # its main thread ends it, with a message of its own
    stop._follow(1, 80)
    assert not said
    assert not stop._peers.left


def test_who_waits_at_the_end_names_a_process_that_is_lost(left, monkeypatch):
    stop, _, said = left
    monkeypatch.setattr(stop._peers, "part", lambda: None, raising=False)
    stop._end_together(None)
    assert [code for _, code in said] == [STOPPED_EARLY]
    assert said[0][0].startswith("process 1 of 2 gone: no sign of life")


def test_who_waits_at_the_end_says_nothing_while_the_thread_leaves(left):
    """Which shuts the connection, and with it fails what the main thread waits for."""
    stop, _, said = left
    stop._deciding = True
    waiting = threading.Thread(target=stop._end_together, args=(None,), daemon=True)
    waiting.start()
    waiting.join(0.7)
    assert waiting.is_alive()
    assert not said


def test_what_a_lost_process_leaves_is_told_once_it_is_saved(left):
    stop, _, said = left
    stop._leave_without([1])
    message = "process 1 of 2 gone: no sign of life; step 40 is saved; run the same command again"
    assert said == [(message, STOPPED_EARLY)]


ENDING = """
import os, signal
from ssl_jax import stop
with stop.Stop(last=True):
    pass
os.kill(os.getpid(), signal.SIGTERM)
os.kill(os.getpid(), signal.SIGINT)
print("done")
"""


def test_no_signal_changes_the_code_of_a_command_that_is_done():
    done = subprocess.run([sys.executable, "-c", ENDING], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def test_the_old_handlers_come_back():
    before = signal.getsignal(signal.SIGTERM)
    with Stop():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before
