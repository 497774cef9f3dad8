"""Comparing processes: what the message names, and how much each process downloads."""

import collections
import concurrent.futures
import threading

import pytest

from ssl_jax.errors import BAD_CONFIG, WATCHDOG, Fault
from ssl_jax.jobs import comparison, coordination
from ssl_jax.jobs.coordination import Job


class Store:
    """JAX's key-value store in memory; counts the bytes that each process downloads."""

    def __init__(self):
        self.values, self.downloaded = {}, collections.Counter()
        self.changed = threading.Condition()

    def client(self, process):
        return Client(self, process)


class Client:
    def __init__(self, store, process):
        self.store, self.process = store, process

    def key_value_set(self, key, value):
        with self.store.changed:
            assert key not in self.store.values
            self.store.values[key] = value
            self.store.changed.notify_all()

    def blocking_key_value_get(self, key, timeout_ms):
        with self.store.changed:
            if not self.store.changed.wait_for(lambda: key in self.store.values, timeout_ms / 1000):
                raise RuntimeError("DEADLINE_EXCEEDED")
            self.store.downloaded[self.process] += len(self.store.values[key])
            return self.store.values[key]


@pytest.fixture
def compare(monkeypatch):
    """Returns a function: fields of each process -> (results or Faults, downloaded bytes)."""
    own = threading.local()
    monkeypatch.setattr(comparison.jax.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(comparison, "Job", lambda: own.job)

    def call(store, process, count, fields, timeout=60):
        own.job = object.__new__(Job)
        own.job._store, own.job.process, own.job.count = store.client(process), process, count
        try:
            comparison.require_equal(
                "test",
                lambda: fields,
                code=BAD_CONFIG,
                advice="Start all alike",
                timeout=timeout,
            )
        except Fault as fault:
            return f"{fault.code}: {fault}"

    def run(processes, **options):
        store, count = Store(), len(processes)
        with concurrent.futures.ThreadPoolExecutor(count) as pool:
            calls = [
                pool.submit(call, store, number, count, fields, **options)
                for number, fields in enumerate(processes)
                if fields is not None
            ]
            return [call.result() for call in calls], store.downloaded

    return run


def test_equal_processes_continue_and_download_a_few_bytes(compare):
    # Lists and tuples are equal: JSON does not tell them apart.
    large = {f"field {n}": "x" * 100 for n in range(100)}
    results, downloaded = compare([large | {"a": (1, 2)}] + [large | {"a": [1, 2]}] * 39)
    assert results == [None] * 40
    assert downloaded[0] < 40 * 100
    assert max(downloaded[process] for process in range(1, 40)) < 100


def test_every_process_names_the_processes_and_the_fields_that_differ(compare):
    same = {"train.seed": 0, "optim.lr": 0.3, "data.label": None, "x": "x" * 50_000}
    other = same | {"optim.lr": 0.5, "method.temperature": 0.1}
    results, downloaded = compare([same, same, other, same, other])
    assert set(results) == {
        f"{BAD_CONFIG}: processes 2, 4 differ from process 0:\n"
        "  method.temperature: absent on process 0, 0.1 on process 2\n"
        "  optim.lr: 0.3 on process 0, 0.5 on process 2\n"
        "Start all alike"
    }
    assert max(downloaded[process] for process in range(1, 5)) < 1000


def test_names_and_values_in_the_message_are_bounded_and_escaped(compare):
    (message, _), _ = compare([{}, {f"{n:02}": "\x1b[31m" + "y" * 500 for n in range(30)}])
    assert message.startswith(
        f"{BAD_CONFIG}: process 1 differs from process 0:\n  00: absent on process 0, "
    )
    assert "and 10 more differences" in message
    assert "\x1b" not in message
    assert len(message) < 4000


def test_long_values_are_shown_around_their_first_difference():
    one, two = (f"/{'a' * 300}/{end}/{'b' * 300}" for end in ("x", "yy"))
    message = comparison.describe_difference({"path": one}, {"path": two}, [1])
    half = comparison.MAX_VALUE // 2
    start, end = f"…{'a' * (half - 1)}/", "b" * (half - 2)
    assert message.splitlines()[1].strip() == (
        f"path: {start}x/{end}… on process 0, {start}yy/{end[1:]}… on process 1"
    )


def test_many_different_processes_are_listed_in_short(compare):
    results, _ = compare([{"a": 0}] + [{"a": 1}] * 30)
    assert results[0].startswith(f"{BAD_CONFIG}: processes 1, 2, 3, 4,")
    assert "20, ... differ from process 0:\n  a: 0 on process 0, 1 on process 1" in results[0]


def test_processes_of_older_code_that_compare_nothing_are_named(compare, monkeypatch):
    monkeypatch.setattr(coordination, "POLL_MS", 50)
    monkeypatch.setattr(Job, "silent_processes", lambda job: [])
    results, _ = compare([{"a": 0}, None, {"a": 0}], timeout=0.1)
    expected = f"{WATCHDOG}: no answer from process 1 for 0.1 s; perhaps an older version of the "
    assert results == [f"{expected}code. Start all alike"] * 2


def test_a_job_of_one_process_computes_nothing():
    comparison.require_equal("test", lambda: pytest.fail("computed"), code=BAD_CONFIG, advice="")
