"""Every read and write of the lake's Delta tables by Spark.

Write, audit, publish: a stage stages rows (`staging.py`), a check judges what is staged, and
publishing (`commits.py`) makes exactly those files visible.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.lake import amounts, commits, frames, opened, staging
from jobs.lake.commits import Published
from jobs.lake.data_files import day_files, days_that_lost_files
from jobs.lake.locations import exists, partition, path, require
from jobs.lake.partitions import column_types
from jobs.lake.publications import Origin
from jobs.lake.quarantine import RULE
from jobs.lake.staging import Staging
from pipelines.spec import QUARANTINE_SUFFIX

if TYPE_CHECKING:
    from pyspark.sql import Column as Expression
    from pyspark.sql.types import StructType

    from jobs.lake.knowledge import Seen, Version
    from pipelines.days import Days
    from pipelines.run import Run
    from pipelines.spec import Table


def read(run: Run, name: str, days: Days | None = None) -> DataFrame:
    """Published rows: all of them, or those whose partition date lies in `days`.

    Raises:
        NightshiftError: the table has never been published.
    """
    require(run, name)
    if days is None:
        return _rows(run, name, lambda _: True)
    rows = _rows(run, name, days.__contains__)
    return rows.where(_within(partition(run, name), days))


def stage_rows(
    run: Run,
    name: str,
    frame: DataFrame,
    days: Collection[date] | None = None,
    origin: Origin | None = None,
) -> int:
    """Write the rows that this run wants to publish, and return how many they are.

    Args:
        days: Partition dates that the rows replace; by default those of the run.
        origin: How they were made.

    Raises:
        NightshiftError: a row belongs to none of the days.
    """
    replaced = days or partition_days(run, run.pipeline.table(name))
    written = staging.write(run, name, frame, tuple(replaced), origin or Origin())
    staging.keep(run, name, written)
    return written.rows


def stage_files(
    run: Run,
    name: str,
    writing: Callable[[str], None],
    schema: StructType,
    days: Collection[date],
    origin: Origin,
) -> int:
    """Have others write the rows that this run wants to publish, and return how many they are.

    See `staging.write_by`, which has them written.
    """
    written = staging.write_by(run, name, writing, schema, days, origin)
    staging.keep(run, name, written)
    return written.rows


def is_staged(run: Run, name: str) -> bool:
    """Whether rows of this table wait in staging for the run's days."""
    return staging.find(run, name) is not None


def unstage(run: Run, name: str) -> None:
    """Forget what waits in staging for the run's days, such as refused rows taken back since."""
    staging.forget(run, name)


def unstage_others(run: Run) -> None:
    """Forget what waits for the run's days of tables that its stage is not to make this time.

    Else an earlier attempt at these days would be read in the place of what is published.
    """
    others = [table for table in run.pipeline.tables if not run.makes(table.name)]
    for table in others:
        if table.made_by == run.doing.name:
            unstage(run, table.name)


def staged(run: Run, name: str) -> DataFrame:
    """The rows that wait for a verdict.

    Raises:
        NightshiftError: nothing is staged for the run's days.
    """
    return staging.frame(run, name, staging.require(run, name))


def current(run: Run, name: str, days: Days) -> DataFrame:
    """The rows of `days` as they will be.

    Staged ones for the days of the run, published ones for the others.
    """
    waiting = staging.find(run, name)
    if waiting is None:
        return read(run, name, days)
    column = partition(run, name)
    fresh = staging.frame(run, name, waiting).where(_within(column, days))
    if not exists(run, name):
        return fresh
    is_replaced = F.col(column).isin(*waiting.days)
    kept = read(run, name, days).where(~is_replaced)
    # A table may have columns that its declaration has lost since, or lack new ones.
    return fresh.unionByName(kept, allowMissingColumns=True)


def as_seen(
    run: Run, name: str, rows: DataFrame, unseen: Collection[date], seen: Seen
) -> DataFrame:
    """The rows of some days as somebody sees them: of each day one version, or none at all.

    Args:
        run: Whose pipeline's table it is.
        name: The table.
        rows: The last versions.
        unseen: The days of which another version than the last one is seen, or none.
        seen: What is seen.
    """
    if not unseen:
        return rows
    column = F.col(partition(run, name))
    found = rows.where(~column.isin(*unseen))
    by_version: dict[int, list[date]] = {}
    for day in unseen:
        if day in seen:
            by_version.setdefault(_delta_version(seen[day]), []).append(day)
    for version, some in sorted(by_version.items()):
        older = _of_days(run, name, some, version)
        # A table may have got columns since.
        found = found.unionByName(older, allowMissingColumns=True)
    return found


def publish(run: Run, name: str, judged: Staging | None = None) -> Published:
    """Make staged rows visible in one commit that replaces exactly their days.

    Args:
        judged: The very staging that was judged; None: that of the run's days.

    Raises:
        Fenced: a later attempt at the same days was there first.
    """
    return commits.publish(run, name, judged or staging.require(run, name))


def write_quarantine(
    run: Run,
    feed: str,
    frame: DataFrame,
    origin: Origin | None = None,
    days: Collection[date] | None = None,
) -> int:
    """Replace what ingestion has in quarantine on some days; returns the number of its rows.

    Rows that a row rule has moved there stay: they are of what is published.

    Args:
        run: Who ingests.
        feed: Whose rows they are.
        frame: The rows.
        origin: How they were made.
        days: On which they are replaced; None: those of the run.
    """
    name = feed + QUARANTINE_SUFFIX
    replaced = tuple(days or run.days)
    by_rules = _quarantined_by_rules(run, name, _whole(run, name, replaced))
    kept = 0 if by_rules is None else by_rules.count()
    if by_rules is not None and kept:
        frame = frame.unionByName(by_rules, allowMissingColumns=True)
    written = staging.write(run, name, frame, replaced, origin or Origin())
    return commits.publish(run, name, written).rows - kept


def write_quarantine_of_rules(
    run: Run,
    name: str,
    judged: Staging,
    rest: Staging,
    bad: DataFrame | None,
) -> int:
    """Replace what row rules have in quarantine on the days of a staging; returns the number.

    Rows that ingestion has there stay.

    Args:
        run: Who publishes the table.
        name: The table.
        judged: What the rows were moved out of.
        rest: What is left of it, to be published next.
        bad: The rows, with the columns of the quarantine and `RULE`; None: there are none.

    Raises:
        NightshiftError: the rest will not be published. The quarantine is as it was.
    """
    quarantine = name + QUARANTINE_SUFFIX
    whole = _whole(run, quarantine, judged.days)
    before = _quarantined_by_rules(run, quarantine, whole)
    if any(feed.name == name for feed in run.pipeline.feeds):
        # Its own stage makes anew what it has refused.
        whole = judged.days
    is_whole = len(whole) == len(judged.days)
    if bad is None and is_whole and (before is None or before.isEmpty()):
        return 0
    # The quarantine's rows of rules are those of what is published.
    commits.refuse_unpublishable(run, name, rest)
    # After what ingestion has published in the same attempt, and before any later attempt.
    writing = replace(run, attempt=judged.attempt + 1)
    rows, kept = _with_rows_of_ingestion(run, quarantine, whole, bad)
    written = staging.write(writing, quarantine, rows, judged.days, judged.origin)
    return commits.publish(writing, quarantine, written).rows - kept


def _with_rows_of_ingestion(
    run: Run,
    quarantine: str,
    days: Collection[date],
    bad: DataFrame | None,
) -> tuple[DataFrame, int]:
    """The rows together with those of ingestion, and how many of these there are."""
    if not exists(run, quarantine):
        assert bad is not None, "without rows and without a table nothing is written"
        return bad, 0
    there = _on(run, quarantine, days)
    own = there
    if RULE in there.columns:
        # Without the column, as ingestion itself writes a day that has no other rows.
        own = there.where(F.col(RULE).isNull()).drop(RULE)
    count = own.count()
    if bad is None:
        return own, count
    return bad.unionByName(own, allowMissingColumns=True), count


def _quarantined_by_rules(run: Run, name: str, days: Collection[date]) -> DataFrame | None:
    """The rows in quarantine that row rules have moved there; None: there never were any."""
    # By the log alone, because nearly always it is so.
    if RULE not in column_types(run, name):
        return None
    return _on(run, name, days).where(F.col(RULE).isNotNull())


def _whole(run: Run, name: str, days: Collection[date]) -> Collection[date]:
    """The days of which a quarantine that row rules fill has lost no data file.

    Of the others no row can be read: their table is made, and judged, anew.
    """
    # By the log alone, because nearly always it is so.
    if RULE not in column_types(run, name):
        return days
    place = path(run, name)
    lost = days_that_lost_files(opened.newest(place), place, days)
    return [day for day in days if day not in lost]


def _on(run: Run, name: str, days: Collection[date]) -> DataFrame:
    require(run, name)
    return _of_days(run, name, days)


def partition_days(run: Run, table: Table) -> Days:
    """The partition dates that a table holds for the run's days."""
    return run.days.shifted(table.partition_lead_days)


def _of_days(
    run: Run,
    name: str,
    days: Collection[date],
    version: int | None = None,
) -> DataFrame:
    rows = _rows(run, name, days.__contains__, version)
    return rows.where(F.col(partition(run, name)).isin(*days))


def _rows(
    run: Run,
    name: str,
    is_read: Callable[[date], bool],
    version: int | None = None,
) -> DataFrame:
    """At least the rows of those days; counted is what is going to be read of them."""
    place = path(run, name)
    table = opened.newest(place) if version is None else opened.at(place, version)
    files = list(day_files(table, is_read))
    amounts.add_files_read(files)
    return frames.of_table(run.environment, place, table, files, version)


def _delta_version(one: Version) -> int:
    assert one.delta_version is not None, "a version that another has followed is published"
    return one.delta_version


def _within(column: str, days: Days) -> Expression:
    first = F.lit(days.first)
    last = F.lit(days.last)
    return F.col(column).between(first, last)
