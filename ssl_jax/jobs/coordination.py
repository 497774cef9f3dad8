"""Messages between the processes of one job: stop requests, failures, exits, signs of life.

The messages go through the key-value store of JAX's coordination service, which process 0 hosts.
Background threads send them, so a process can answer while its main thread is blocked. Process 0
collects and answers, so traffic grows with the number of processes and not with its square.
"""

import json
import time
from collections.abc import Callable, Collection
from typing import Any

import jax

KEY_PREFIX = "ssl_jax/"
ANSWER_TIMEOUT = 60.0  # seconds for all processes to answer
EXIT_TIMEOUT = 30.0  # seconds that process 0 waits for the others, which may finish a save first
SILENCE = 3.0  # seconds without a beat after which a process counts as dead; beats come every 0.5 s
MAX_LISTED = 20  # numbers of processes in one message
POLL_MS = 1000  # length of one blocking read; between reads, the thread can check other things


class LostProcesses(Exception):
    """Raised when processes do not answer.

    Args:
      processes: their numbers.
    """

    def __init__(self, processes: list[int]):
        super().__init__(f"no answer from {format_processes(processes)}")
        self.processes = processes


class Job:
    """This process's connection to the other processes of its job.

    Every method raises LostProcesses([0]) if process 0, which hosts the store, is lost.
    """

    def __init__(self) -> None:
        # JAX has no public name for the client; Orbax and MaxText also take it from here.
        from jax._src import distributed

        state = distributed.global_state
        self._store: Any = state.client
        # Not jax.process_index(): it initializes the devices, whose number is not settled yet.
        self.process, self.count = state.process_id, state.num_processes
        self._beats = 0

    def post_notice(self, kind: str, **content: Any) -> None:
        """Posts a notice from this process to all; only the first of each kind is kept."""
        self._set(f"notice/{kind}/{self.process}", content)

    def notices(self, kind: str) -> dict[int, Any]:
        """Returns {process: content} of all notices of a kind."""
        return {int(key): json.loads(value) for key, value in self._list(f"notice/{kind}")}

    def beat(self) -> None:
        """Shows that this process is alive."""
        self._beats += 1
        try:
            self._store.key_value_set(f"{KEY_PREFIX}beat/{self.process}", str(self._beats), True)
        except RuntimeError as error:
            raise LostProcesses([0]) from error

    def beats(self) -> dict[int, int]:
        """Returns {process: number of beats so far}."""
        return {int(key): int(value) for key, value in self._list("beat")}

    def agree(
        self,
        topic: str,
        own: Any,
        decide: Callable[[list[Any]], Any],
        *,
        timeout: float = ANSWER_TIMEOUT,
    ) -> Any:
        """Collects a value from every process and returns process 0's decision to all.

        Args:
          topic: name of the question; each topic is used once.
          own: this process's value; must be JSON serializable.
          decide: function of [value of process 0, value of process 1, ...]; process 0 calls it.
          timeout: seconds for all processes to answer.

        Raises:
          LostProcesses: some processes do not answer in time.
        """
        self._set(f"{topic}/{self.process}", own)
        if self.process == 0:
            deadline = time.monotonic() + timeout
            values = [self._get(f"{topic}/{p}", deadline) for p in range(self.count)]
            lost = [p for p, value in enumerate(values) if value is None]
            self._set(f"{topic}/answer", {"gone": lost} if lost else {"answer": decide(values)})
        reply = self._get(f"{topic}/answer", time.monotonic() + 1.5 * timeout)
        if reply is None or "gone" in reply:
            raise LostProcesses(reply["gone"] if reply else [0])
        return reply["answer"]

    def barrier(self, name: str) -> None:
        """Returns once all processes have reached this barrier; waits without a time limit."""
        self._set(f"{name}/{self.process}", True)
        if self.process == 0:
            for process in range(self.count):
                while self._get(f"{name}/{process}", 0) is None:
                    continue
            self._set(f"{name}/answer", True)
        while self._get(f"{name}/answer", 0) is None:
            continue

    def silent_processes(self) -> list[int]:
        """Returns the other processes that send no beats and did not announce their exit.

        Takes SILENCE seconds.
        """
        try:
            before = self.beats()
            time.sleep(SILENCE)
            after, exited = self.beats(), self.notices("left")
        except LostProcesses as lost:
            return lost.processes
        silent = [p for p in range(self.count) if after.get(p) == before.get(p)]
        return [p for p in silent if p not in exited and p != self.process]

    def announce_exit(self, lost: Collection[int] = ()) -> None:
        """Announces that this process exits without `disconnect`, and returns when it may exit.

        Process 0 exits last, because JAX aborts the other processes when its store is gone. It
        waits at most EXIT_TIMEOUT for them.

        Args:
          lost: processes that will never announce their exit.
        """
        self._set(f"notice/left/{self.process}", {})
        deadline = time.monotonic() + EXIT_TIMEOUT
        others = set(range(self.count)) - {0, *lost}
        while self.process == 0 and time.monotonic() < deadline:
            if others <= self.notices("left").keys():
                return
            time.sleep(0.1)

    def disconnect(self) -> None:
        """Closes the connection; waits until all processes call this."""
        jax.distributed.shutdown()

    def _set(self, key: str, value: Any) -> None:
        try:
            self._store.key_value_set(KEY_PREFIX + key, json.dumps(value))
        except RuntimeError as error:
            if "ALREADY_EXISTS" not in str(error):
                raise LostProcesses([0]) from error

    def _get(self, key: str, deadline: float) -> Any:
        """Waits for a value; returns None after the deadline. Always waits at least once."""
        while True:
            try:
                return json.loads(self._store.blocking_key_value_get(KEY_PREFIX + key, POLL_MS))
            except RuntimeError as error:
                if "DEADLINE_EXCEEDED" not in str(error):
                    raise LostProcesses([0]) from error
            if time.monotonic() > deadline:
                return None

    def _list(self, folder: str) -> list[tuple[str, str]]:
        try:
            entries = self._store.key_value_dir_get(f"{KEY_PREFIX}{folder}/")
        except RuntimeError as error:
            raise LostProcesses([0]) from error
        return [(key.rpartition("/")[2], value) for key, value in entries]


def format_processes(processes: list[int]) -> str:
    """Returns "process 3" or "processes 3, 4"; lists at most MAX_LISTED numbers."""
    more = ", ..." if len(processes) > MAX_LISTED else ""
    numbers = ", ".join(map(str, processes[:MAX_LISTED])) + more
    return f"process{'es' if len(processes) > 1 else ''} {numbers}"
