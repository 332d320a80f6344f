"""What something asks for, counted: a clock tells of the machine, and counts do not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from cProfile import Profile
from dataclasses import dataclass
from functools import partial
from types import CodeType

from deltalake import DeltaTable

from jobs.lake import sql
from pipelines.environment import Environment


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


def require_proportion(
    ask: Callable[[Environment], object],
    homes: Sequence[Environment],
) -> None:
    """Require that it opens the same tables in each home, and works in proportion.

    Args:
        ask: What is asked of a home.
        homes: Three, with twice as many nights on record in each as in the one before.
    """
    for environment in homes:
        # Imports, and what is kept of a table from one time to the next.
        ask(environment)
    few, more, most = [work_of(partial(ask, environment)) for environment in homes]
    assert few.tables == more.tables == most.tables
    assert few.statements == more.statements == most.statements
    # Twice as many nights again add twice what those before have added; a little is by chance.
    assert most.calls - more.calls <= 2.2 * (more.calls - few.calls) + 1000


def _code(function: Callable[..., object]) -> CodeType:
    code: CodeType = function.__code__  # type: ignore[attr-defined]
    return code
