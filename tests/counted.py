"""What something asks for, counted: a clock tells of the machine, and counts do not."""

from __future__ import annotations

from collections.abc import Callable
from cProfile import Profile
from dataclasses import dataclass
from types import CodeType

from deltalake import DeltaTable

from jobs.lake import sql


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What was asked for."""

    calls: int
    """Of functions, by Python."""
    tables: int
    """Opened."""
    statements: int
    """Waited for."""


def work_of(asked: Callable[[], object]) -> Work:
    """Call it, and count."""
    profile = Profile()
    profile.runcall(asked)
    counts = {one.code: one.callcount for one in profile.getstats()}
    return Work(
        calls=sum(counts.values()),
        tables=counts.get(_code(DeltaTable.__init__), 0),
        statements=counts.get(_code(sql.Session.waited), 0),
    )


def _code(function: Callable[..., object]) -> CodeType:
    code: CodeType = function.__code__  # type: ignore[attr-defined]
    return code
