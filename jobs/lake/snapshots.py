"""Published tables at a pinned version, read without a JVM and in one fixed order.

What is read from a snapshot can be read again, byte for byte.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from pyarrow.parquet import filters_to_expression

from jobs.lake import amounts, opened, publications
from jobs.lake.arrow_files import dataset_of
from jobs.lake.data_files import DayFile, day_files
from jobs.lake.knowledge import Knowledge
from jobs.lake.locations import path, version
from jobs.lake.publications import Publication
from pipelines.days import Days
from pipelines.errors import refuse_unless
from pipelines.run import Run

_Filter = tuple[str, str, date]
_OPERATORS: dict[str, Callable[[date, date], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    "<=": operator.le,
}
"""Those of the filters below."""
_ANY: Mapping[str, Days] = {}


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """A table of the run's pipeline at one version."""

    table: str
    version: int
    """Delta version, after which nothing counts."""
    night: date
    """That sees them: of each day the last version that was known by then."""
    taken_at: datetime | None = None
    """When: what was told later of rows that were there, such as that they are known from an
    earlier night, counts not. None: nobody knows, and it counts."""


def newest(run: Run, table: str) -> Snapshot:
    """The newest version of a published table as the run's night sees it, pinned.

    Raises:
        NightshiftError: the table has never been published.
    """
    return Snapshot(
        table=table,
        version=version(run, table),
        night=run.night,
        # By the record and not by the clock, which may have been set back since.
        taken_at=publications.told(run, table).last_instant,
    )


def versions(run: Run, snapshot: Snapshot) -> set[int]:
    """The Delta versions that hold the rows which `read` gives, of any days."""
    told = publications.every(run, snapshot.table)
    others: set[int] = set()
    if told:
        days = [one.day for one in told]
        of_days = _other_versions(run, snapshot, Days(min(days), max(days)), told)
        others = {version for version in of_days.values() if version is not None}
    return {snapshot.version, *others}


def read(
    run: Run,
    snapshot: Snapshot,
    days: Days,
    columns: tuple[str, ...] | None = None,
    where: Mapping[str, Days] = _ANY,
) -> pa.Table:
    """The rows of those partitions, ordered by partition and key.

    Args:
        columns: Those to read, beside partition and key; None: all.
        where: By column of dates between which days its values lie: files without any are not read.

    Raises:
        UsageError: that version has no column by which rows are told apart by now.
    """
    table = run.pipeline.table(snapshot.table)
    order = tuple(dict.fromkeys((table.partition, *table.key)))
    wanted = None if columns is None else list(dict.fromkeys((*columns, *order)))
    others = _other_versions(run, snapshot, days, publications.every(run, table.name, days))
    kept: list[_Filter] = [
        (table.partition, ">=", days.first),
        (table.partition, "<=", days.last),
    ]
    kept += [(table.partition, "!=", day) for day in others]
    parts = [_rows(run, snapshot.table, snapshot.version, kept, wanted, where)]
    for day, older in others.items():
        if older is not None:
            only: list[_Filter] = [(table.partition, "=", day)]
            parts.append(_rows(run, snapshot.table, older, only, wanted, where))
    # Columns that the table has got since are null.
    rows = pa.concat_tables(parts, promote_options="default")
    lacking = [name for name in order if name not in rows.column_names]
    refuse_unless(
        not lacking,
        f"{run.pipeline.name}.{table.name} has no {', '.join(lacking)} in version "
        f"{snapshot.version}, which is from before that was declared as part of the key. Declare "
        "the key of then to read it, or ask for what was made since.",
    )
    # Delta keeps files in the order of their commits, and Arrow reads them on many threads.
    return rows.sort_by([(name, "ascending") for name in order])


def files(run: Run, snapshot: Snapshot, days: Days) -> list[DayFile]:
    """The files that hold the rows of `read`, by the log alone."""
    told = publications.every(run, snapshot.table, days)
    others = _other_versions(run, snapshot, days, told)
    by_version: dict[int, set[date]] = {}
    for day in days:
        version = others.get(day, snapshot.version)
        if version is not None:
            by_version.setdefault(version, set()).add(day)
    found: list[DayFile] = []
    for version, own in by_version.items():
        found += day_files(_opened(run, snapshot.table, version), own.__contains__)
    return found


def schema(run: Run, snapshot: Snapshot) -> pa.Schema:
    """The columns of a table at that version."""
    return pa.schema(_opened(run, snapshot.table, snapshot.version).schema())


def count(run: Run, snapshot: Snapshot, days: Days) -> int:
    """How many rows those partitions have at that version, by the log alone."""
    table = _opened(run, snapshot.table, snapshot.version)
    return sum(file.rows for file in day_files(table, days.__contains__))


def _opened(run: Run, table: str, version: int) -> DeltaTable:
    return opened.at(path(run, table), version)


def _other_versions(
    run: Run, snapshot: Snapshot, days: Days, told: Sequence[Publication]
) -> dict[date, int | None]:
    """Days of which the night sees an older version than the snapshot's, or none, with that."""
    by_then = publications.by_then(told, snapshot.version, snapshot.taken_at)
    knowledge = Knowledge(run, {snapshot.table: by_then})
    seen = knowledge.seen_by(snapshot.table, snapshot.night)
    found = {}
    for day in knowledge.unseen(snapshot.table, days, seen):
        found[day] = seen[day].delta_version if day in seen else None
    return found


def _rows(
    run: Run,
    table: str,
    version: int,
    only: list[_Filter],
    columns: list[str] | None,
    where: Mapping[str, Days] = _ANY,
) -> pa.Table:
    place = path(run, table)
    then = _opened(run, table, version)
    there = {field.name for field in then.schema().fields}
    if columns is not None:
        columns = [column for column in columns if column in there]
    amounts.add_files_read(day_files(then, lambda day: _all_hold(only, day)))
    kept = list(only)
    for name, days in where.items():
        # One that the table did not have yet says nothing of its rows.
        if name in there:
            kept += [(name, ">=", days.first), (name, "<=", days.last)]
    wanted = filters_to_expression(kept) if kept else None
    return dataset_of(then, place, kept or None).to_table(columns=columns, filter=wanted)


def _all_hold(filters: Iterable[_Filter], day: date) -> bool:
    return all(_OPERATORS[how](day, value) for _, how, value in filters)


def between(rows: pa.Table, column: str, days: Days) -> pa.Table:
    """The rows whose date lies in the days."""
    from_first = pc.greater_equal(rows[column], pa.scalar(days.first))
    to_last = pc.less_equal(rows[column], pa.scalar(days.last))
    return rows.filter(pc.and_(from_first, to_last))
