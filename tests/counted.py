"""What something asks for, counted: a clock tells of the machine, and counts do not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from cProfile import Profile
from dataclasses import dataclass
from functools import partial
from types import CodeType

import pytest
from deltalake import DeltaTable

from bench.recorded_year import YEAR
from jobs.lake import sql
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.landing import stamp

LENGTHS = (60, 120, 240)
"""Nights on record: each twice those before."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What was asked for."""

    calls: int
    """Of functions, by Python."""
    tables: int
    """Opened."""
    statements: int
    """Waited for."""
    looks: int
    """At files in the landing folder: whether they are there."""


def work_of(asked: Callable[[], object]) -> Work:
    """Call it, and count."""
    profile = Profile()
    profile.runcall(asked)
    counts = {one.code: one.callcount for one in profile.getstats()}
    return Work(
        calls=sum(counts.values()),
        tables=counts.get(_code(DeltaTable.__init__), 0),
        statements=counts.get(_code(sql.Session.waited), 0),
        looks=counts.get(_code(stamp), 0),
    )


def homes_with(
    nights: Callable[[Environment, Days], None], folders: pytest.TempPathFactory
) -> list[Environment]:
    """A home for each of `LENGTHS`, with as many nights on record.

    Args:
        nights: Records them in a home.
        folders: Makes the homes' folders.
    """
    made = []
    for length in LENGTHS:
        home = folders.mktemp(str(length))
        environment = Environment.read({"NIGHTSHIFT_HOME": str(home)})
        nights(environment, Days(list(YEAR)[-length], YEAR.last))
        made.append(environment)
    return made


def require_proportion(
    ask: Callable[[Environment], object],
    homes: Sequence[Environment],
) -> None:
    """Require that it opens the same tables in each home, and works in proportion.

    Args:
        ask: What is asked of a home.
        homes: As `homes_with` makes them.
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
