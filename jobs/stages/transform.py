"""Stage `transform`: makes the derived tables.

Each is made by the function of its name in `jobs/transforms/<pipeline>.py`, for the days of the
run and, when a window reaches from them into later days that are published already, for those too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.lake import tables
from jobs.lake.partitions import published_days
from pipelines.catalog import part
from pipelines.days import Days
from pipelines.errors import UsageError

if TYPE_CHECKING:
    from pipelines.run import Run
    from pipelines.spec import Pipeline, Table

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
    derived = [table for table in run.pipeline.derived if table.made_by == "transform"]
    functions = {table.name: _function(run, table) for table in derived}
    made: dict[str, Days] = {}
    staged: dict[str, Future[int]] = {}
    with ThreadPoolExecutor(_TABLES_AT_ONCE) as pool:
        for table in derived:
            made[table.name] = _days_to_make(run, table, made)
            inputs = [staged[name] for name in table.reads if name in staged]
            staged[table.name] = pool.submit(
                _stage, run, table, functions[table.name], made[table.name], inputs
            )
    rows = {name: one.result() for name, one in staged.items()}
    reached = max((days.last for days in made.values()), default=run.days.last)
    return {
        "rows_staged": sum(rows.values()),
        **({"made_again_until": str(reached)} if reached > run.days.last else {}),
        "tables": rows,
    }


def written_for(
    pipeline: Pipeline, name: str, parameters: str, lacking: str
) -> Callable[..., DataFrame]:
    """The function of that name in `jobs/transforms/<pipeline>.py`.

    Raises:
        UsageError: there is none; the message begins with what is `lacking` and says which function
            to write where.
    """
    module = part("jobs.transforms", pipeline, "its transforms")
    found: Callable[..., DataFrame] | None = getattr(module, name, None)
    if found is None:
        file = f"jobs/transforms/{pipeline.name}.py"
        raise UsageError(f"{lacking}: write `def {name}({parameters})` in {file}.")
    return found


def _function(run: Run, table: Table) -> Callable[..., DataFrame]:
    lacking = f"Table '{run.pipeline.name}.{table.name}' has no transform"
    return written_for(run.pipeline, table.name, ", ".join([*table.reads, "days"]), lacking)


def _days_to_make(run: Run, table: Table, made: Mapping[str, Days]) -> Days:
    """The run's days, on to the last published day whose window holds a day that is made again."""
    changed = max((made[name].last for name in table.reads if name in made), default=run.days.last)
    reach = changed + timedelta(days=table.window_days - 1)
    if reach == run.days.last:
        return run.days
    published = [day for day in published_days(run, table.name) if run.days.last < day <= reach]
    return Days(run.days.first, max(published, default=run.days.last))


def _stage(
    run: Run,
    table: Table,
    function: Callable[..., DataFrame],
    days: Days,
    inputs: list[Future[int]],
) -> int:
    # Inputs were submitted before, so they run or have run: waiting for them holds up nothing that
    # they need.
    for one in inputs:
        one.result()
    return tables.stage_rows(run, table.name, _make(run, table, function, days), days)


def _make(run: Run, table: Table, function: Callable[..., DataFrame], days: Days) -> DataFrame:
    frames = {name: _input(run, table, name, days) for name in table.reads}
    rows = function(**frames, days=days)
    return rows if days == run.days else _only_days_of(rows, run, table)


def _input(run: Run, table: Table, name: str, days: Days) -> DataFrame:
    """A table as its reader is given it.

    Whole snapshots of a reference feed, else the days of the window.
    """
    feeds = {feed.name: feed for feed in run.pipeline.feeds}
    if name not in feeds:
        return tables.current(run, name, days.since(table.window_days - 1))
    if feeds[name].is_reference:
        return tables.read(run, name).where(F.col("landed_date") <= F.lit(days.last))
    return tables.read(run, name, days.since(table.window_days - 1))


def _only_days_of(rows: DataFrame, run: Run, table: Table) -> DataFrame:
    """Without the days between run and reach that no run has made yet."""
    kept = [*run.days, *(day for day in published_days(run, table.name) if day > run.days.last)]
    return rows.where(F.col(table.partition).isin(kept))
