"""Stage `transform`: makes the derived tables.

Each is made by the function of its name in `jobs/transforms/<pipeline>.py`, for the days of the
run and, when a window reaches from them into later days that are published already, for those too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.lake import publications, staging, tables
from jobs.lake.partitions import published_days
from jobs.lake.publications import Checksums, Input, Origin
from jobs.lake.transforms import Transform, definitions_of_data, transform_of
from jobs.spark.session import connect
from pipelines.days import Days

if TYPE_CHECKING:
    from pipelines.run import Run
    from pipelines.spec import Table

_TABLES_AT_ONCE = 3
"""The server plans one table while it computes another; more would only wait for its cores."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Making:
    """A derived table, and how its rows are made."""

    table: Table
    function: Transform
    definition: str


def transform(run: Run) -> dict[str, object]:
    """Stage every derived table.

    Returns:
        Rows staged, in all and by table, and the last day that was made again when a window reached
        past the run's.

    Raises:
        UsageError: a declared table has no function.
    """
    # Spark's functions work without a JVM only from the first session on.
    connect(run.environment)
    # All before the first is called: a missing function costs no work.
    defined = definitions_of_data(run.pipeline)
    makings = [
        _Making(
            table=table,
            function=transform_of(run.pipeline, table),
            definition=defined[table.name],
        )
        for table in run.pipeline.derived
    ]
    # Before anything is read: what is replaced meanwhile makes these rows too old to be published.
    known = _known(run)
    days_made: dict[str, Days] = {}
    staged: dict[str, Future[int]] = {}
    with ThreadPoolExecutor(_TABLES_AT_ONCE) as pool:
        for making in makings:
            table = making.table
            days = _days_to_make(run, table, days_made)
            # What this run makes itself; anything else is published already.
            inputs = [staged[name] for name in table.reads if name in staged]
            staged[table.name] = pool.submit(_stage, run, making, days, inputs, known)
            days_made[table.name] = days
    rows = {name: future.result() for name, future in staged.items()}
    metrics: dict[str, object] = {"rows_staged": sum(rows.values())}
    reached = _last_day(days_made.values(), run)
    if reached > run.days.last:
        metrics["made_again_until"] = str(reached)
    return {**metrics, "tables": rows}


def _days_to_make(run: Run, table: Table, made: Mapping[str, Days]) -> Days:
    """The run's days, on to the last published day whose window holds a day that is made again."""
    changed = _last_day([made[name] for name in table.reads if name in made], run)
    # A window of n days that ends n - 1 days later still holds the day.
    reach = changed + timedelta(days=table.window_days - 1)
    # Nearly always: then no log of Delta is read.
    if reach == run.days.last:
        return run.days
    touched = [day for day in _published_later(run, table) if day <= reach]
    return Days(run.days.first, max(touched, default=run.days.last))


def _last_day(ranges: Iterable[Days], run: Run) -> date:
    return max((days.last for days in ranges), default=run.days.last)


def _published_later(run: Run, table: Table) -> list[date]:
    """The published days after those of the run."""
    # A day without rows is in the record, and in no partition.
    published = {*published_days(run, table.name), *publications.in_force(run, table.name)}
    return sorted(day for day in published if day > run.days.last)


def _known(run: Run) -> dict[str, dict[date, str]]:
    """What the published rows of every table say that a transform reads."""
    names: set[str] = set()
    for table in run.pipeline.derived:
        names.update(table.reads)
    return {name: publications.checksums(run, name) for name in sorted(names)}


def _stage(
    run: Run,
    making: _Making,
    days: Days,
    inputs: list[Future[int]],
    known: dict[str, dict[date, str]],
) -> int:
    # Inputs were submitted before, so they run or have run: waiting for them holds up nothing that
    # they need.
    for staged in inputs:
        staged.result()
    table = making.table
    made = _days_made(run, table, days)
    rows = _make(run, making, days, made)
    needed = {day: _inputs(run, table, day, known) for day in made}
    origin = Origin(definition=making.definition, inputs=needed)
    count = tables.stage_rows(run, table.name, rows, made, origin)
    fresh = staging.require(run, table.name)
    # For the tables that read this one.
    checksums = {day: fresh.checksum(day) for day in made}
    known.setdefault(table.name, {}).update(checksums)
    return count


def _days_made(run: Run, table: Table, days: Days) -> list[date]:
    """Without the days between run and reach that no run has made yet."""
    if days == run.days:
        return list(days)
    return [*run.days, *(day for day in _published_later(run, table) if day in days)]


def _make(run: Run, making: _Making, days: Days, made: Sequence[date]) -> DataFrame:
    table = making.table
    frames = {name: _input(run, table, name, days) for name in table.reads}
    rows = making.function(**frames, days=days)
    if days == run.days:
        return rows
    return rows.where(F.col(table.partition).isin(*made))


def _inputs(
    run: Run,
    table: Table,
    day: date,
    known: Checksums,
) -> tuple[Input, ...]:
    """What the rows of one day are made from."""
    found = []
    for name in table.reads:
        days = _days_read(run, table, name, Days.of(day))
        found.append(publications.table_input(run, name, days, known[name]))
    return tuple(found)


def _days_read(run: Run, table: Table, name: str, days: Days) -> Days:
    """The days of an input that some days of the table need: the window, or any day till then."""
    feeds = {feed.name: feed for feed in run.pipeline.feeds}
    if name in feeds and feeds[name].is_reference:
        return Days(run.pipeline.first_day, days.last)
    return days.since(table.window_days - 1)


def _input(run: Run, table: Table, name: str, days: Days) -> DataFrame:
    """A table as its reader is given it.

    Whole snapshots of a reference feed, else the days of the window.
    """
    wanted = _days_read(run, table, name, days)
    if name in {feed.name for feed in run.pipeline.feeds}:
        # Of a reference feed, a later snapshot was not known on these days.
        return tables.read(run, name, wanted)
    return tables.current(run, name, wanted)
