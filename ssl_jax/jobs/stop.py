"""SIGTERM and SIGINT: one process or all of a job stop at one step, with their state saved.

Where a signal comes decides what happens. In training, every process stops after the same step,
which they agree on, and saves it. Before and after, there is nothing new to save: all leave at
once, also while the main thread compiles, where Python would not look at a signal for minutes.

A thread watches, which `signal.set_wakeup_fd` wakes. It agrees with the other processes through
`peers`, never by a collective: those are for main threads, which call them in one order or hang.
"""

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, ClassVar, NoReturn

from ssl_jax.errors import INTERRUPTED, STOPPED_EARLY, Fault, exit_code
from ssl_jax.jobs.streams import tell

START, TRAIN, FINISH = "start", "train", "finish"
NOW = 0  # in place of the step to stop at
ANSWER = 5.0  # seconds for the main thread to look at a signal, or to end what it compiles
UNWIND = 20.0  # seconds for it to leave, once it has looked; a preempted host has 30
TICK = 0.5  # seconds between two looks at what the other processes say


class Stop:
    """A context manager in which signals stop the command as this module says.

    Args:
      last: nothing but the end of the command follows, which signals no longer change.
    """

    CODES: ClassVar = {signal.SIGTERM: STOPPED_EARLY, signal.SIGINT: INTERRUPTED}

    def __init__(self, *, last: bool = False) -> None:
        self._last = last
        self.signal: signal.Signals | None = None
        self._origin = ""  # " on process 1"
        self._heard = 0  # signals that the main thread has looked at
        self._gently = False
        self._raised: Fault | None = None  # what the handler raised
        self._checkpoints: Any = None
        self._peers: Any = None
        self._phase, self._count = START, 0
        self._turn = threading.Condition()
        self._deciding = self._over = self._parted = False
        self._stop_at: int | None = None
        self._received = 0.0  # when the first signal came

    def join(self) -> None:
        """Stops together with the other processes of the job from now on, if there are any."""
        import jax

        if self._peers is None and jax.distributed.is_initialized():
            from ssl_jax.jobs.peers import Peers

            self._peers = Peers()

    def wait_for(self, checkpoints: Any) -> None:
        """Has `checkpoints.wait()` called before the command ends by a signal."""
        self._checkpoints = checkpoints

    @contextlib.contextmanager
    def gently(self) -> Iterator[None]:
        """Inside, a signal is only noted; one that nobody has answered ends the command after."""
        self._gently = True
        try:
            yield
        except Exception as error:
            self._explain(error)
            raise
        finally:
            self._gently = False
        with self._turn:
            self._turn.wait_for(lambda: not self._deciding)
            self._phase = FINISH
            stopping = self.signal if self._peers is None else self._stop_at is not None
        if stopping:
            raise self.fault("all steps are saved")

    def reached(self, step: int) -> bool:
        """Whether to save this step and stop; asked once a step, and at the same place by all."""
        with self._turn:
            # A process that goes on while the others decide could pass the step they decide on.
            self._turn.wait_for(lambda: not self._deciding)
            self._phase, self._count = TRAIN, step
            if self._peers is None:
                return self.signal is not None
            return self._stop_at is not None and step >= self._stop_at

    def fault(self, saved: str) -> Fault:
        """What ends the command after the signal, once all processes have saved."""
        assert self.signal is not None
        if self._peers is not None:
            self._checkpoints.wait()
            self._peers.meet("saved")
            self._parted = True
        return Fault(self._message(saved), self.CODES[self.signal])

    def _message(self, saved: str) -> str:
        assert self.signal is not None
        return f"{self.signal.name}{self._origin}: {saved}; run the same command again"

    def __enter__(self) -> "Stop":
        self._pipe, self._wakeup = os.pipe()
        os.set_blocking(self._wakeup, False)
        self._old_wakeup = signal.set_wakeup_fd(self._wakeup, warn_on_full_buffer=False)
        self._old = {number: signal.signal(number, self._request) for number in self.CODES}
        self._thread = threading.Thread(target=self._watch, name="stop", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: Any, error: BaseException | None, _: Any) -> None:
        if self._peers is not None:
            self._end_together(error)
        elif self.signal and "jax" in sys.modules:
            # It may have come after the processes had met: then the thread, and with it all, leave.
            self._deciding = True
            self.join()
            self._deciding = self._peers is not None
        with self._turn:
            self._turn.wait_for(lambda: not self._deciding)  # for ever, if the thread leaves
            self._over = True
        for number, handler in self._old.items():
            signal.signal(number, signal.SIG_IGN if self._last else handler)
        signal.set_wakeup_fd(self._old_wakeup)
        os.write(self._wakeup, b"\0")
        self._thread.join()
        os.close(self._pipe)
        os.close(self._wakeup)
        if self._raised and error is not None and error is not self._raised:
            raise self._raised from error  # amid an import, say, which made an error of its own

    def _request(self, number: int, _: Any) -> None:
        """The handler, in the main thread."""
        self._heard += 1
        if self._heard > 2:
            _exit("third signal: aborting", 128 + number)
        if self._heard > 1 and (self._gently or self._peers is not None):
            tell("saving; this signal is ignored, a third one aborts")
            return
        if self._peers is None:
            self.signal = signal.Signals(number)
            if not self._gently:
                self._raised = self.fault("nothing new to save")
                raise self._raised

    # The thread.

    def _watch(self) -> None:
        while not self._over:
            ready, _, _ = select.select([self._pipe], [], [], TICK)
            numbers = [n for n in os.read(self._pipe, 64) if n in self.CODES] if ready else []
            if numbers and not self._received:
                self._received = time.monotonic()
                self._first = signal.Signals(numbers[0])
            if self._over:
                return
            if self._peers is None:
                if self._received and time.monotonic() - self._received > self._patience():
                    self.signal = self._first
                    self._leave()
            elif not self._parted:
                self._listen()

    def _patience(self) -> float:
        """Seconds from the signal until the thread ends the command of a single process."""
        if self._gently and self._phase != START:
            return float("inf")  # a step may take long, and then saves
        # Imports may swallow what the handler raises, and go on; later there are ends to be tied.
        return UNWIND if self._raised and self._phase != START else ANSWER

    def _listen(self) -> None:
        from ssl_jax.jobs.peers import Gone

        try:
            self._peers.beat()
            if self._received:
                self._peers.notify("stop", signal=self._first.name)
            for process, said in self._peers.notices("failed").items():
                if process != self._peers.process:
                    self._follow(process, said["code"])
            if self._stop_at is None and (notices := self._peers.notices("stop")):
                first = min(notices)
                self.signal = signal.Signals[notices[first]["signal"]]
                self._origin = f" on process {first}"
                self._decide()
        except Gone as gone:
            if not self._parted:
                self._leave_without(gone.processes)
            self._go_on()  # what came too late to stop anything

    def _decide(self) -> None:
        """Agrees with all on the step to stop at, and leaves if there is none to wait for."""
        with self._turn:
            self._deciding = True
            own = self._phase, self._count
        self._stop_at = self._peers.gather("stop", own, common_step)
        if self._stop_at == NOW or own[0] == FINISH:
            self._leave()
        self._go_on()

    def _go_on(self) -> None:
        with self._turn:
            self._deciding = False
            self._turn.notify_all()

    def _leave(self) -> NoReturn:
        """Ends the command from this thread, whatever the main thread does."""
        assert self.signal is not None
        code, message = self.CODES[self.signal], self._message("nothing new to save")
        try:
            # While a process compiles, the others' saves would wait for it.
            if self._checkpoints is not None and self._phase == FINISH:
                self._checkpoints.wait()
        except Fault as fault:
            if self._peers is not None:
                self._fail(fault.code)
            _exit(f"{self.signal.name}: {fault}", fault.code)
        if self._peers is not None:
            self._peers.meet("saved")
            self._peers.part()
        _exit(message, code)

    def _follow(self, process: int, code: int) -> None:
        """Ends with another process that failed, unless this one fails by itself meanwhile.

        All meet the same bad step, and the main threads say more of it.
        """
        self._await_save()
        deadline = time.monotonic() + ANSWER
        while not self._parted and time.monotonic() < deadline:
            time.sleep(TICK)
        if self._parted:
            return
        with self._turn:
            self._deciding = True
        self._end_with(process, code)

    def _end_with(self, process: int, code: int) -> NoReturn:
        from ssl_jax.jobs.peers import Gone

        with contextlib.suppress(Gone):
            self._peers.leave()
        _exit(f"process {process} ended with exit code {code}; its message says why", code)

    def _leave_without(self, processes: list[int]) -> NoReturn:
        from ssl_jax.jobs.peers import Gone, name

        with self._turn:
            self._deciding = True  # the main thread goes nowhere now
        self._await_save()
        with contextlib.suppress(Gone):
            self._peers.leave(processes)
        what = f"{name(processes)} of {self._peers.count} gone: no sign of life; {self._saved()}"
        _exit(f"{what}; run the same command again", STOPPED_EARLY)

    def _await_save(self) -> None:
        """Lets a save that is under way end: process 0 writes manifests after all the others."""
        if self._checkpoints is None:
            return

        def wait() -> None:
            with contextlib.suppress(Exception):  # what is saved is read from the disk after this
                self._checkpoints.wait()

        # Without the others it may never end.
        waiting = threading.Thread(target=wait, name="save", daemon=True)
        waiting.start()
        waiting.join(UNWIND)

    def _saved(self) -> str:
        step = self._checkpoints.latest_step() if self._checkpoints is not None else None
        return f"step {step} is saved" if step else "nothing was saved yet"

    # Ends of the main thread, of several processes.

    def _end_together(self, error: BaseException | None) -> None:
        from ssl_jax.jobs.peers import Gone

        if error is None:
            try:
                self._peers.meet("end")  # the thread still answers signals
            except Gone as gone:
                # Of this process, too, if its thread has begun to leave: it parts under our feet.
                with self._turn:
                    self._turn.wait_for(lambda: not self._deciding)  # for ever, if so
                self._leave_without(gone.processes)
        elif not self._parted:
            self._explain(error)
            self._fail(exit_code(error))
            return
        self._parted = True
        self._peers.part()

    def _explain(self, error: BaseException) -> None:
        """Ends the command if the error comes of another process that is gone."""
        if self._peers is None or isinstance(error, Fault):
            return
        with self._turn:
            self._turn.wait_for(lambda: not self._deciding)  # for ever, if the thread leaves
        if missing := self._peers.missing():
            self._leave_without(missing)
        for process, said in self._peers.notices("failed").items():
            if process != self._peers.process:
                self._end_with(process, said["code"])

    def _fail(self, code: int) -> None:
        """Tells the other processes, which would wait for this one, to end as well."""
        self._parted = True  # from here on this one follows none of them
        self._peers.notify("failed", code=code)
        self._peers.leave()


def common_step(said: list[tuple[str, int]]) -> int:
    """The step after which all stop, the first that none has reached; or NOW.

    While one process still compiles, the others are in their first step at most: not worth the
    wait. What comes after training has nothing to save either, and a step beyond the last is that.

    Args:
      said: phase and last step reached, of every process.
    """
    phases = {phase for phase, _ in said}
    if START in phases or phases == {FINISH}:
        return NOW
    return max(step for _, step in said) + 1


def _exit(message: str, code: int) -> NoReturn:
    tell(message)
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    os._exit(code)
