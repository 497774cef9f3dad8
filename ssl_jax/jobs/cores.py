"""Number of CPU cores that this process may use. Standard library only."""

import os


def usable_cores() -> int:
    """Returns the number of CPU cores that the scheduler allows this process to use."""
    affinity = getattr(os, "sched_getaffinity", None)  # not available on macOS
    return len(affinity(0)) if affinity else os.cpu_count() or 1
