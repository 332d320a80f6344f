"""How many processor cores are ours, of those that the machine has."""

from __future__ import annotations

import os
from pathlib import Path

_QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""Of a container: how many microseconds of processors it may use in each period of so many."""


def cores() -> int:
    """Whole cores that this process and those below it have, by the system and by a container.

    0 where a container has less than one.
    """
    allowed = len(os.sched_getaffinity(0))
    if not _QUOTA.exists():
        return allowed
    microseconds, period = _QUOTA.read_text().split()
    # Without a limit it is the word max.
    if microseconds == "max":
        return allowed
    return min(allowed, int(microseconds) // int(period))


def at_least_one() -> int:
    """Cores for one that computes in any case, whatever the quota."""
    return max(1, cores())
