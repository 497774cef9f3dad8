"""What the processes of one job tell each other beside their arrays: stops, ends, signs of life.

They write into the key-value store of JAX's coordination service, which process 0 holds, from
threads of their own: a process is heard whatever its main thread waits for. Process 0 gathers and
answers, so that the traffic grows with the number of processes and not with its square.
"""

import json
import time
from collections.abc import Callable, Collection
from typing import Any

import jax

ROOT = "ssl_jax/"
PATIENCE = 60.0  # seconds for all processes to answer
PARTING = 30.0  # seconds that process 0 stays for the others, which may end a save first
SILENCE = 3.0  # seconds without a sign of life, which come twice a second, of a dead process
WAIT = 1000  # milliseconds of one call that waits, so that its thread sees what else happens


class Gone(Exception):
    """Processes that do not answer.

    Args:
      processes: their numbers.
    """

    def __init__(self, processes: list[int]):
        super().__init__(f"no answer from {name(processes)}")
        self.processes = processes


class Peers:
    """The processes of this job, seen from one of them."""

    def __init__(self) -> None:
        # JAX has no public name for it; Orbax and MaxText take it from here as well.
        from jax._src import distributed

        job = distributed.global_state
        self._store: Any = job.client
        # Not jax.process_index(), which looks for devices: how many there are is not settled yet.
        self.process, self.count = job.process_id, job.num_processes
        self._beats = 0

    def notify(self, kind: str, **content: Any) -> None:
        """Leaves a notice for all, of this process; of one kind only the first."""
        self._set(f"notice/{kind}/{self.process}", content)

    def notices(self, kind: str) -> dict[int, Any]:
        """{process: content}; raises Gone if process 0 is."""
        return {int(key): json.loads(value) for key, value in self._all(f"notice/{kind}")}

    def beat(self) -> None:
        """Shows that this process is alive."""
        self._beats += 1
        try:
            self._store.key_value_set(f"{ROOT}beat/{self.process}", str(self._beats), True)
        except RuntimeError as error:
            raise Gone([0]) from error

    def beats(self) -> dict[int, int]:
        """{process: beats so far}; raises Gone if process 0 is."""
        return {int(key): int(value) for key, value in self._all("beat")}

    def gather(self, about: str, own: Any, answer: Callable[[list[Any]], Any]) -> Any:
        """What process 0 makes of what all say, told to all.

        Args:
          about: names the question, which is asked once.
          own: what this process says; JSON.
          answer: of [process 0's, process 1's, ...]; called by process 0.

        Raises:
          Gone: some do not answer in time.
        """
        self._set(f"{about}/{self.process}", own)
        if self.process == 0:
            deadline = time.monotonic() + PATIENCE
            said = [self._get(f"{about}/{p}", deadline) for p in range(self.count)]
            gone = [p for p, value in enumerate(said) if value is None]
            self._set(f"{about}/answer", {"gone": gone} if gone else {"answer": answer(said)})
        found = self._get(f"{about}/answer", time.monotonic() + 1.5 * PATIENCE)
        if found is None or "gone" in found:
            raise Gone(found["gone"] if found else [0])
        return found["answer"]

    def meet(self, about: str) -> None:
        """Returns once all processes have come here, however long that takes."""
        self._set(f"{about}/{self.process}", True)
        if self.process == 0:
            for process in range(self.count):
                while self._get(f"{about}/{process}", 0) is None:
                    continue
            self._set(f"{about}/answer", True)
        while self._get(f"{about}/answer", 0) is None:
            continue

    def missing(self) -> list[int]:
        """The processes that show no sign of life and have not said that they leave."""
        try:
            before = self.beats()
            time.sleep(SILENCE)
            after, left = self.beats(), self.notices("left")
        except Gone as gone:
            return gone.processes
        silent = [p for p in range(self.count) if after.get(p) == before.get(p)]
        return [p for p in silent if p not in left and p != self.process]

    def leave(self, gone: Collection[int] = ()) -> None:
        """Says that this process ends without `part`, and returns when it may.

        Process 0 holds the store, and without that JAX aborts the others: it goes last.

        Args:
          gone: the processes that will never leave.
        """
        self._set(f"notice/left/{self.process}", {})
        deadline = time.monotonic() + PARTING
        others = set(range(self.count)) - {0, *gone}
        while self.process == 0 and time.monotonic() < deadline:
            if others <= self.notices("left").keys():
                return
            time.sleep(0.1)

    def part(self) -> None:
        """Ends the connection, together with all others."""
        jax.distributed.shutdown()

    def _set(self, key: str, value: Any) -> None:
        try:
            self._store.key_value_set(ROOT + key, json.dumps(value))
        except RuntimeError as error:
            if "ALREADY_EXISTS" not in str(error):
                raise Gone([0]) from error

    def _get(self, key: str, deadline: float) -> Any:
        """Waits for a value; None if there is none at the deadline, after one wait at least."""
        while True:
            try:
                return json.loads(self._store.blocking_key_value_get(ROOT + key, WAIT))
            except RuntimeError as error:
                if "DEADLINE_EXCEEDED" not in str(error):
                    raise Gone([0]) from error
            if time.monotonic() > deadline:
                return None

    def _all(self, folder: str) -> list[tuple[str, str]]:
        try:
            found = self._store.key_value_dir_get(f"{ROOT}{folder}/")
        except RuntimeError as error:
            raise Gone([0]) from error
        return [(key.rpartition("/")[2], value) for key, value in found]


def name(processes: list[int]) -> str:
    """ "process 3", or "processes 3, 4", for people."""
    shown = ", ".join(map(str, processes[:20])) + (", ..." if len(processes) > 20 else "")
    return f"process{'es' if len(processes) > 1 else ''} {shown}"
