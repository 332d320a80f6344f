"""Stage `transform`: makes the derived tables.

Each is made by the function of its name in `jobs/transforms/<pipeline>.py`, for the days of the
run and, when a window reaches from them into later days that are published already, for those too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import date, timedelta
from typing import TYPE_CHECKING

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.lake import tables
from jobs.lake.partitions import published_days
from jobs.spark.session import connect
from pipelines.catalog import part
from pipelines.days import Days
from pipelines.errors import UsageError

if TYPE_CHECKING:
    from pipelines.run import Run
    from pipelines.spec import Pipeline, Table

Transform = Callable[..., DataFrame]
"""Makes the rows of the table that it is named after, from the tables that it names."""
_TABLES_AT_ONCE = 3
"""The server plans one table while it computes another; more would only wait for its cores."""


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
    derived = run.pipeline.derived
    # All before the first is called: a missing function costs no work.
    functions = {table.name: _function(run, table) for table in derived}
    days_made: dict[str, Days] = {}
    staged: dict[str, Future[int]] = {}
    with ThreadPoolExecutor(_TABLES_AT_ONCE) as pool:
        for table in derived:
            days = _days_to_make(run, table, days_made)
            # What this run makes itself; anything else is published already.
            inputs = [staged[name] for name in table.reads if name in staged]
            function = functions[table.name]
            staged[table.name] = pool.submit(_stage, run, table, function, days, inputs)
            days_made[table.name] = days
    rows = {name: future.result() for name, future in staged.items()}
    metrics: dict[str, object] = {"rows_staged": sum(rows.values())}
    reached = _last_day(days_made.values(), run)
    if reached > run.days.last:
        metrics["made_again_until"] = str(reached)
    return {**metrics, "tables": rows}


def written_for(
    pipeline: Pipeline,
    name: str,
    parameters: str,
    lacking: str,
) -> Transform:
    """The function of that name in `jobs/transforms/<pipeline>.py`.

    Raises:
        UsageError: there is none; the message begins with what is `lacking` and says which function
            to write where.
    """
    module = part("jobs.transforms", pipeline, "its transforms")
    function: Transform | None = getattr(module, name, None)
    if function is None:
        file = f"jobs/transforms/{pipeline.name}.py"
        raise UsageError(f"{lacking}: write `def {name}({parameters})` in {file}.")
    return function


def _function(run: Run, table: Table) -> Transform:
    lacking = f"Table '{run.pipeline.name}.{table.name}' has no transform"
    parameters = ", ".join([*table.reads, "days"])
    return written_for(run.pipeline, table.name, parameters, lacking)


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
    return [day for day in published_days(run, table.name) if day > run.days.last]


def _stage(
    run: Run,
    table: Table,
    function: Transform,
    days: Days,
    inputs: list[Future[int]],
) -> int:
    # Inputs were submitted before, so they run or have run: waiting for them holds up nothing that
    # they need.
    for staged in inputs:
        staged.result()
    rows = _make(run, table, function, days)
    return tables.stage_rows(run, table.name, rows, days)


def _make(run: Run, table: Table, function: Transform, days: Days) -> DataFrame:
    frames = {name: _input(run, table, name, days) for name in table.reads}
    rows = function(**frames, days=days)
    if days == run.days:
        return rows
    return _only_days_of(rows, run, table)


def _input(run: Run, table: Table, name: str, days: Days) -> DataFrame:
    """A table as its reader is given it.

    Whole snapshots of a reference feed, else the days of the window.
    """
    window = days.since(table.window_days - 1)
    feeds = {feed.name: feed for feed in run.pipeline.feeds}
    if name not in feeds:
        return tables.current(run, name, window)
    if not feeds[name].is_reference:
        return tables.read(run, name, window)
    # A later snapshot was not known on these days.
    has_landed = F.col("landed_date") <= F.lit(days.last)
    return tables.read(run, name).where(has_landed)


def _only_days_of(rows: DataFrame, run: Run, table: Table) -> DataFrame:
    """Without the days between run and reach that no run has made yet."""
    kept = [*run.days, *_published_later(run, table)]
    return rows.where(F.col(table.partition).isin(kept))
