"""Refuses a job whose processes differ, and names the difference.

Every process publishes one digest, and process 0 compares the digests. Only if some differ, process
0 and the first process that differs publish the values behind their digests. A process therefore
downloads a few bytes, whatever the number of processes.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax

from ssl_jax.errors import WATCHDOG, Fault
from ssl_jax.jobs.coordination import MAX_LISTED, Job, LostProcesses, format_processes

MAX_LINES = 20  # of a message
MAX_VALUE = 100  # characters of a value in a message


def require_equal(
    topic: str,
    fields: Callable[[], Mapping[str, Any]],
    *,
    code: int,
    advice: str,
    timeout: float = math.inf,
) -> None:
    """Returns if all processes of the job have equal fields; does nothing in a job of one process.

    All processes call this function with the same topic, and each waits for all others.

    Args:
      topic: name of the comparison, for example "data"; each topic is used once.
      fields: returns {name for the message: JSON-serializable value}.
      code: exit code of the Fault.
      advice: what the user should do; the end of the Fault's message.
      timeout: seconds for all processes to call this function. No limit by default, because a slow
        file system may need minutes to list the data.

    Raises:
      Fault: in all processes; it names the processes that differ from process 0, and each field
        of the first of them with both values. WATCHDOG after the timeout.
    """
    if not jax.distributed.is_initialized():
        return
    job = Job()
    own = {name: json.dumps(value, sort_keys=True) for name, value in fields().items()}
    digest = hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()
    try:
        different = job.agree(topic, digest, _different, timeout=timeout)
    except LostProcesses as lost:
        if job.silent_processes():
            raise  # ended; the caller of `Stop` reports it
        who = format_processes(lost.processes)
        message = f"no answer from {who} for {timeout:g} s; perhaps an older version of the code"
        raise Fault(f"{message}. {advice}", WATCHDOG) from lost
    if not different:
        return
    first = different[0]
    message = job.agree(
        f"{topic}/values",
        own if job.process in (0, first) else {},
        lambda values: describe_difference(values[0], values[first], different),
    )
    raise Fault(f"{message}\n{advice}", code)


def _different(digests: list[str]) -> list[int]:
    """Returns the numbers of the processes whose digest is not that of process 0."""
    numbers = [number for number, digest in enumerate(digests) if digest != digests[0]]
    return numbers[: MAX_LISTED + 1]


def describe_difference(
    reference: Mapping[str, str], other: Mapping[str, str], processes: list[int]
) -> str:
    """Returns the message for processes that differ from process 0.

    Args:
      reference: {name: JSON of the value} of process 0.
      other: the same of the first of `processes`.
      processes: numbers of the processes that differ.
    """
    names = sorted(n for n in reference.keys() | other.keys() if reference.get(n) != other.get(n))
    lines = []
    for name in names[:MAX_LINES]:
        one, two = _shown(reference.get(name), other.get(name))
        lines.append(f"{name}: {one} on process 0, {two} on process {processes[0]}")
    if len(names) > MAX_LINES:
        lines.append(f"and {len(names) - MAX_LINES} more differences")
    who = format_processes(processes)
    only = len(processes) == 1
    head = f"{who} differs from process 0:" if only else f"{who} differ from process 0:"
    return "\n  ".join([head, *lines])


def _shown(*values: str | None) -> list[str]:
    """Returns different values as text: of long ones, the part around the first difference."""
    texts = ["absent" if value is None else value for value in values]
    pairs = enumerate(zip(*texts, strict=False))
    first = next((i for i, pair in pairs if len(set(pair)) > 1), min(map(len, texts)))
    start = max(0, first - MAX_VALUE // 2)
    parts = [text[start : start + MAX_VALUE] for text in texts]
    return [
        f"{'…' * bool(start)}{part}{'…' * (start + len(part) < len(text))}"
        for text, part in zip(texts, parts, strict=True)
    ]
