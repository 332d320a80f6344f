"""Keeps statements from taking much more memory than NIGHTSHIFT_SQL_MEMORY, whatever they ask for.

DuckDB's own limit does not count single values, nor the rows that a result makes in Python.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psutil

from pipelines.errors import UsageError

if TYPE_CHECKING:
    from jobs.lake.sql import Session

_LEAST_BESIDE = 1024**3
"""Bytes for what DuckDB does not count: files that are read, rows on their way."""


@contextmanager
def bounded(session: Session) -> Iterator[None]:
    """Let the process take no more than the memory of statements, and as much again beside it.

    Raises:
        UsageError: what runs in the block needs more.
    """
    before, most = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (_allowed(session, before), most))
    try:
        yield
    except MemoryError:
        from jobs.lake.sql import OUT_OF_MEMORY

        raise UsageError(f"A value or a row is too large. {OUT_OF_MEMORY}") from None
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (before, most))


def _allowed(session: Session, before: int) -> int:
    # Elsewhere the limit does not count what is mapped.
    if sys.platform != "linux":
        return before
    memory = session.memory
    wanted = int(psutil.Process().memory_info().data) + memory + max(memory, _LEAST_BESIDE)
    return wanted if before == resource.RLIM_INFINITY else min(wanted, before)
