"""What work takes of this machine: processor and memory, as the system tells when it has ended.

Nothing is polled: the system counts anyway.
"""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.errors import NightshiftError, UsageError

if TYPE_CHECKING:
    import psutil

    from pipelines.environment import Environment

_KILOBYTE = 1024
_OWN = Path("/proc/self")
_MEMORY_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
"""Where a container tells what it may have."""
_FORGET_PEAK = "5"
"""What Linux takes in `clear_refs` for: the peak of the resident memory begins anew."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """What a piece of work has taken."""

    seconds: float
    cpu_seconds: float
    """Of its process, of children of it that have ended, and of what the stage server did for it in
    processes of their own, such as ranks."""
    spark_cpu_seconds: float | None
    """That the embedded Spark server has used meanwhile, whoever it worked for; None: there is
    none, such as where a cluster computes."""
    peak_bytes: int
    """Resident memory of its process, with what that shares with the stage server, and of the most
    that the stage server had forked for it at one time, each process at its peak. Of other children
    the largest counts, where none before was larger."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Forked:
    """A child of the stage server that this process has waited for."""

    began: float
    ended: float
    cpu_seconds: float
    peak_bytes: int


_SERVERS: dict[tuple[Path, int], psutil.Process] = {}
"""By home and port the Spark server that was found last: to look for one takes the longer the more
processes and connections the machine has."""
_FORKED: list[_Forked] = []
"""In the order in which this process saw them end."""


def add_forked(told: Mapping[str, object], began: float, cpu_seconds_before: float = 0.0) -> None:
    """Count a child of the stage server that has ended.

    Args:
        told: What `of_ended` told of it; nothing: it told none.
        began: When it was asked for, by the monotonic clock.
        cpu_seconds_before: That it had used for what is counted elsewhere.
    """
    with suppress(KeyError, TypeError, ValueError):
        one = _Forked(
            began=began,
            ended=time.monotonic(),
            cpu_seconds=float(str(told["cpu_seconds"])) - cpu_seconds_before,
            peak_bytes=int(str(told["peak_bytes"])),
        )
        _FORKED.append(one)


def of_ended(told: resource.struct_rusage) -> dict[str, float | int]:
    """What a child that has ended took, with all that it waited for itself."""
    return {
        "cpu_seconds": told.ru_utime + told.ru_stime,
        "peak_bytes": told.ru_maxrss * _KILOBYTE,
    }


def of_lost(told: str) -> tuple[datetime, Usage]:
    """When a child of the stage server began (UTC), and what it took, as its client wrote it.

    Raises:
        UsageError: it is not what a client writes.
    """
    try:
        lost = json.loads(told)
        began = datetime.fromisoformat(lost["since"])
        taken = lost["taken"]
        return began, Usage(
            seconds=(datetime.now(UTC) - began).total_seconds(),
            cpu_seconds=float(taken.get("cpu_seconds", 0.0)),
            # Who asks now has not seen how much it was when the child began.
            spark_cpu_seconds=None,
            peak_bytes=int(taken.get("peak_bytes", 0)),
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        raise UsageError(f"'{told}' does not tell since when something is lost.") from None


def memory() -> int:
    """Bytes of memory that this machine has, or that its container may have."""
    import psutil

    total: int = psutil.virtual_memory().total
    told = [file.read_text().strip() for file in _MEMORY_LIMITS if file.exists()]
    # Without a limit it is the word max.
    limits = [int(text) for text in told if text.isdecimal()]
    return min([total, *limits])


class Meter:
    """Measures from when it is made."""

    def __init__(self, environment: Environment) -> None:
        """Begin.

        Args:
            environment: Whose Spark server works for what is measured.
        """
        # Measured by another clock than the machine's, which may be set meanwhile. First: what
        # follows takes its time, and what began at one instant must not seem to end before it did.
        self._began = time.monotonic()
        self._spark = _spark_server(environment)
        self._spark_began = _spark_seconds(self._spark)
        self._largest_child = _largest_child()
        self._forked_before = len(_FORKED)
        with suppress(OSError):
            (_OWN / "clear_refs").write_text(_FORGET_PEAK)
        self._cpu_began = _cpu_seconds()

    def read(self) -> Usage:
        """What was taken until now."""
        seconds = time.monotonic() - self._began
        spark_now = _spark_seconds(self._spark)
        spark = None
        if spark_now is not None and self._spark_began is not None:
            spark = spark_now - self._spark_began
        largest = _largest_child()
        children = largest if largest > self._largest_child else 0
        forked = _most_at_once(_FORKED[self._forked_before :])
        return Usage(
            seconds=seconds,
            cpu_seconds=_cpu_seconds() - self._cpu_began,
            spark_cpu_seconds=spark,
            peak_bytes=_own_peak() + forked + children,
        )


def _cpu_seconds() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    forked = sum(one.cpu_seconds for one in _FORKED)
    return time.process_time() + children.ru_utime + children.ru_stime + forked


def _most_at_once(forked: Sequence[_Forked]) -> int:
    """The most memory that children had together; only when one begins can it be more."""
    most = 0
    for moment in [one.began for one in forked]:
        alive = [one for one in forked if one.began <= moment < one.ended]
        most = max(most, sum(one.peak_bytes for one in alive))
    return most


def _largest_child() -> int:
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * _KILOBYTE


def _own_peak() -> int:
    peak = peak_of(_OWN)
    # Elsewhere than on Linux it never begins anew.
    return peak or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KILOBYTE


def peak_of(process: Path) -> int | None:
    """Bytes that a process had resident at its peak, by its folder in `/proc`; None: not told."""
    with suppress(OSError, ValueError):
        for line in (process / "status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name == "VmHWM":
                return int(value.split()[0]) * _KILOBYTE
    return None


def _spark_server(environment: Environment) -> object:
    from jobs.services import processes

    if environment.spark_remote:
        return None
    asked = environment.home, environment.spark_port
    known = _SERVERS.get(asked)
    with suppress(NightshiftError, OSError):
        if known is not None and known.is_running() and processes.is_alive(known):
            return known
        holder = processes.listener(environment.spark_port)
        if holder is not None and processes.belongs(holder, environment.home):
            _SERVERS[asked] = holder
            return holder
    return None


def _spark_seconds(server: object) -> float | None:
    """Processor time of the server, and of its workers that have ended; None: there is none."""
    import psutil

    if not isinstance(server, psutil.Process):
        return None
    with suppress(psutil.Error):
        told = server.cpu_times()
        return float(told.user + told.system + told.children_user + told.children_system)
    return None
