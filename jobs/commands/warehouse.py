"""The command `nightshift warehouse`: has PostgreSQL catch up with the lake, and tells how far."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING

from jobs.warehouse.catching_up import Caught, catch_up, published_tables
from jobs.warehouse.connection import BY_HAND
from pipelines.days import Days
from pipelines.errors import NightshiftError
from pipelines.redaction import redacted

if TYPE_CHECKING:
    from pipelines.environment import Environment
    from pipelines.spec import Pipeline

HEADER = ("table", "state", "n_days", "days")
_Row = tuple[object, ...]


def warehouse(
    environment: Environment,
    pipelines: Sequence[Pipeline],
    lacking: Mapping[str, Exception] = MappingProxyType({}),
    *,
    is_dry: bool,
) -> tuple[int, list[_Row]]:
    """Publish every day that PostgreSQL lacks, or only tell which these are.

    Args:
        environment: Whose lake and PostgreSQL they are.
        pipelines: Whose tables.
        lacking: Why others are not looked at, by name.
        is_dry: Only tell.

    Returns:
        The exit code, and by `HEADER` a row for each run of days of a table that are `current`,
        `published` by now, still `behind`, or there in a table that was `refused`. Why days are
        behind or refused is told on stderr.

    Raises:
        UsageError: no PostgreSQL is set, or its address makes no sense.
        WarehouseAway: it does not answer.
    """
    rows: list[_Row] = []
    told = [f"{name}: {why}" for name, why in lacking.items()]
    for pipeline in pipelines:
        wanted = published_tables(pipeline)
        for one in catch_up(environment, pipeline, wanted, BY_HAND, is_dry=is_dry):
            rows += _rows(one)
            told += [f"{one.table}: {fault}" for fault in one.faults]
            for note in one.notes:
                print(f"Warning: {note}", file=sys.stderr)
    for fault in told:
        print(f"Fault: {redacted(fault, environment.variables())}", file=sys.stderr)
    return (NightshiftError.exit_code if told else 0), rows


def _rows(one: Caught) -> Iterable[_Row]:
    states = {
        "current": one.current,
        "refused": one.refused,
        "published": one.written,
        "behind": one.left,
    }
    for state, days in states.items():
        for span in _spans(days):
            yield one.table, state, len(span), str(span)


def _spans(days: Sequence[date]) -> list[Days]:
    """Days that follow each other, together."""
    found: list[Days] = []
    for day in days:
        if found and day - found[-1].last == timedelta(days=1):
            found[-1] = Days(found[-1].first, day)
        else:
            found.append(Days.of(day))
    return found
