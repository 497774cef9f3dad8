"""Stopping by a signal: the step that processes agree on, and a single process in every phase."""

import os
import signal
import subprocess
import sys
import time

import pytest

from ssl_jax.errors import INTERRUPTED, STOPPED_EARLY, Fault
from ssl_jax.stop import FINISH, NOW, START, TRAIN, Stop, common_step


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
        (signal_in_the_last_step, STOPPED_EARLY, "SIGTERM: all steps are saved"),
    ],
)
def test_one_process_is_stopped(case, code, told):
    with pytest.raises(Fault, match=f"^{told}; run the same command again") as caught:
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


def test_a_main_thread_that_compiles_does_not_hold_the_command():
    """As in XLA's compiler, the main thread is in C and no handler of Python's runs."""
    child = subprocess.Popen(
        [sys.executable, "-c", COMPILING], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert child.stdout.readline() == b"compiling\n"
    child.send_signal(signal.SIGTERM)
    _, told = child.communicate(timeout=20)
    assert child.returncode == STOPPED_EARLY
    assert told == b"ssl_jax: SIGTERM: nothing new to save; run the same command again\n"


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
