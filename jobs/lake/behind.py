"""The rows behind a row that was scored: where they stand in tables, and in files of the sources.

Its own row in the entity table, the row that each feature view found, and of both the raw rows with
file and line. Where many days are summed up, the files of these days are told and not their rows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc

from jobs.lake import publications, snapshots
from jobs.lake.knowledge import Knowledge
from jobs.lake.locations import sql_name
from pipelines.days import Days
from pipelines.features import day_end, known_since

if TYPE_CHECKING:
    from jobs.lake.publications import Publication
    from pipelines.features import FeatureView
    from pipelines.feeds import Feed
    from pipelines.run import Run

_SHOWN = 3
"""Raw rows behind one row that are told one by one; of more it is told how many there are."""
_LOOKED_INTO = 60
"""Days of a table in which a row is looked for: beyond, it is said that none was found."""
_HOURS_A_DAY = 24
_Row = Mapping[str, Any]
_Asked = tuple[tuple[str, Any], ...]
"""The columns of a key, each with its value."""
_Rules = tuple[str, str | None, int | None]
"""By which a view finds one of the rows of a key."""
_Lookups = dict[str, dict[tuple[_Asked, _Rules], list["FeatureView"]]]
"""By table, and by what is looked up in it, the views that do so."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Behind:
    """A row behind a scored one, or many that are told together."""

    table: str
    """Its SQL name."""
    days: str
    """Partition dates."""
    row: str
    """What identifies it; of many, how many there are."""
    file: str | None = None
    """Below the landing folder; of many the first and the last."""
    line: int | None = None
    read_for: str = ""
    """The entity, or names of feature views."""


def behind(run: Run, entity: Mapping[str, Any]) -> list[Behind]:
    """What is behind the row of an entity, as the run's night sees it.

    Args:
        run: Of the night that scored it.
        entity: Value of each column of the entity.
    """
    found: dict[Behind, list[str]] = {}
    for one in _Search(run).all(entity):
        # What is read for several views is told once.
        found.setdefault(replace(one, read_for=""), []).append(one.read_for)
    told: list[Behind] = []
    for one, names in found.items():
        read_for = ", ".join(names)
        told.append(replace(one, read_for=read_for))
    return told


class _Search:
    """Reads each day of a table once."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._knowledge = Knowledge(run)
        self._read: dict[tuple[str, date], pa.Table] = {}

    def all(self, entity: Mapping[str, Any]) -> Iterator[Behind]:
        table = self._run.pipeline.entity_table
        own = self._last(table, entity, [self._run.night])
        if own is None:
            return
        yield from self._told(table, own, "entity")
        for table, views in self._lookups(own).items():
            for (keys, _), names in views.items():
                yield from self._looked_up(table, dict(keys), names, own)

    def _lookups(self, own: _Row) -> _Lookups:
        found: _Lookups = {}
        for view in self._run.pipeline.views:
            key = {column: own.get(name) for column, name in view.keys.items()}
            asked = tuple({**view.constants, **key}.items())
            rules = (view.event, view.created, view.max_age_hours)
            of_table = found.setdefault(view.table, {})
            of_table.setdefault((asked, rules), []).append(view)
        return found

    def _looked_up(
        self,
        table: str,
        key: _Row,
        views: Sequence[FeatureView],
        own: _Row,
    ) -> Iterator[Behind]:
        names = ", ".join(view.name for view in views)
        row = None
        view, moment = views[0], own["event_timestamp"]
        if moment is not None and None not in key.values():
            row = self._last(table, key, self._days_of(view, moment), view, moment)
        if row is None:
            yield Behind(
                table=sql_name(self._run, table),
                days=f"until {self._run.night}",
                row=f"none with {_named(key)}",
                read_for=names,
            )
        elif table == self._run.pipeline.entity_table:
            # Already told: the row itself.
            return
        else:
            yield from self._told(table, row, names, row.get(view.event))

    def _days_of(self, view: FeatureView, moment: datetime) -> list[date]:
        """Days on which the view may have found its row at the moment, newest first."""
        hours = view.max_age_hours
        night = self._run.night
        seen = self._knowledge.seen_by(view.table, night)
        known = sorted((day for day in seen if day <= night), reverse=True)
        timezone = self._run.pipeline.timezone
        if day_end("landed_date", timezone) in (view.event, known_since(view, timezone)):
            # Nobody knows such a row, or it does not hold, before the day on which it landed ends.
            known = [day for day in known if _end_of(day, timezone) <= moment]
        if hours is not None:
            oldest = night - timedelta(days=-(-hours // _HOURS_A_DAY))
            known = [day for day in known if day >= oldest]
        return known[:_LOOKED_INTO]

    def _last(
        self,
        table: str,
        key: _Row,
        days: Iterable[date],
        view: FeatureView | None = None,
        moment: datetime | None = None,
    ) -> dict[str, Any] | None:
        """The last row with that key that was known at the moment; None: none of these days has.

        Args:
            table: Whose rows.
            days: In which it is looked for, newest first.
            key: Of the row.
            view: By whose rules; None: any row will do.
            moment: Of the view.
        """
        best: dict[str, Any] | None = None
        for day in days:
            if best is not None and view is not None and day < _oldest_that_counts(best, view):
                break
            rows = self._fitting(table, day, key)
            if view is not None and moment is not None:
                rows = _known_at(rows, view, moment)
            if not len(rows):
                continue
            (row,) = rows.slice(len(rows) - 1).to_pylist()
            if view is None or view.event not in row:
                return dict(row)
            if best is None or _order(row, view) > _order(best, view):
                best = dict(row)
        return best

    def _told(
        self, table: str, row: _Row, read_for: str, at: datetime | None = None
    ) -> Iterator[Behind]:
        """A row, and the raw rows that it was made from."""
        pipeline = self._run.pipeline
        declared = pipeline.table(table)
        day = row[declared.partition]
        own = Behind(
            table=sql_name(self._run, table),
            days=str(day),
            row=_named({name: row[name] for name in declared.key}),
            file=row.get("source_file"),
            line=row.get("source_line"),
        )
        yield replace(own, read_for=read_for)
        for feed, days in self._feeds_behind(table, day).items():
            for raw in self._raw(pipeline.feed(feed), days, row, at):
                yield replace(raw, read_for=read_for)

    def _feeds_behind(self, table: str, day: date) -> dict[str, Days]:
        """The feeds that a day of a derived table was made from, with the days that count."""
        derived = {one.name: one for one in self._run.pipeline.derived}
        found: dict[str, Days] = {}
        waiting = [(table, Days.of(day))]
        while waiting:
            name, days = waiting.pop(0)
            made = derived.get(name)
            if made is None:
                if name != table:
                    found[name] = days
                continue
            needed = days.since(made.window_days - 1)
            waiting += [(read, needed) for read in made.reads]
        return found

    def _raw(
        self,
        feed: Feed,
        days: Days,
        row: _Row,
        at: datetime | None,
    ) -> Iterator[Behind]:
        """The rows of a feed behind a row of a derived table.

        Args:
            feed: Whose rows.
            days: That count.
            row: Of the derived table.
            at: When it holds, where a view tells.
        """
        seen = self._knowledge.seen_by(feed.name, self._run.night)
        there = [day for day in sorted(seen) if day in days]
        if feed.is_reference:
            there = [day for day in sorted(seen) if day <= days.last][-1:]
        key = self._key_of(feed, there[0], row) if len(there) == 1 else {}
        rows = None
        if key:
            of_day = self._fitting(feed.name, there[0], key)
            rows = self._of_that_time(feed, of_day, at)
        table = sql_name(self._run, feed.name)
        if rows is None or len(rows) > _SHOWN:
            yield Behind(
                table=table,
                days=str(Days(there[0], there[-1]) if there else days),
                row="not listed" if rows is None else f"{len(rows)} rows with {_named(key)}",
                file=_first_and_last(self._files(feed.name, there)),
            )
            return
        for one in rows.to_pylist():
            yield Behind(
                table=table,
                days=str(there[0]),
                row=_named({name: one[name] for name in feed.key}),
                file=one["source_file"],
                line=one["source_line"],
            )

    def _key_of(self, feed: Feed, day: date, row: _Row) -> dict[str, Any]:
        """What a row of a derived table tells of the key of its rows in a feed."""
        key: dict[str, Any] = {}
        for name in feed.key:
            value = row.get(name)
            if value is None:
                continue
            kind = self._of_day(feed.name, day)[name].type
            # A transform may have put something else in the place of a column.
            if _as(value, kind) is not None:
                key[name] = value
        return key

    def _of_that_time(
        self,
        feed: Feed,
        rows: pa.Table,
        at: datetime | None,
    ) -> pa.Table:
        """Those of the rows whose key has that time; all of them where none has."""
        for column in feed.columns:
            if at is not None and column.name in feed.key and column.type == "timestamp":
                of_then = _equal(rows, column.name, at)
                return of_then if len(of_then) else rows
        return rows

    def _files(self, table: str, days: Collection[date]) -> list[str]:
        """The files of those days of a feed that the night saw, in their order."""
        seen = self._knowledge.seen_by(table, self._run.night)
        # Of one version the last publication counts.
        told: dict[tuple[date, int | None], Publication] = {}
        for one in publications.every(self._run, table):
            told[one.day, one.version] = one
        files: list[str] = []
        for day in days:
            publication = told[day, seen[day].delta_version]
            files += [given.name for given in publication.inputs]
        return list(dict.fromkeys(files))

    def _fitting(self, table: str, day: date, key: _Row) -> pa.Table:
        rows = self._of_day(table, day)
        for name, value in key.items():
            if name in rows.column_names:
                rows = _equal(rows, name, value)
        return rows

    def _of_day(self, table: str, day: date) -> pa.Table:
        if (table, day) not in self._read:
            snapshot = snapshots.newest(self._run, table)
            rows = snapshots.read(self._run, snapshot, Days.of(day))
            self._read[table, day] = rows
        return self._read[table, day]


def _equal(rows: pa.Table, name: str, value: object) -> pa.Table:
    """The rows that have the value in that column."""
    wanted = _as(value, rows[name].type)
    if wanted is None:
        return rows.slice(0, 0)
    return rows.filter(pc.equal(rows[name], wanted))


def _as(value: object, kind: pa.DataType) -> pa.Scalar | None:
    """The value as a column of that type holds it; None: it can hold no such value."""
    try:
        return pa.scalar(value).cast(kind)
    except pa.ArrowException:
        return None


def _end_of(day: date, timezone: str) -> datetime:
    """The instant that `pipelines.features.day_end` tells in SQL."""
    return datetime.combine(day + timedelta(days=1), time(), ZoneInfo(timezone))


def _known_at(rows: pa.Table, view: FeatureView, moment: datetime) -> pa.Table:
    """The rows that hold and are known by then, and are not too old; the last one last."""
    order: list[str] = []
    for column in (view.event, view.created):
        # Of an expression only Spark knows the value; then the day alone decides.
        if column is not None and column in rows.column_names:
            times = _instants(rows[column])
            at = pa.scalar(moment).cast(times.type)
            rows = rows.filter(pc.less_equal(times, at))
            order.append(column)
    if view.max_age_hours is not None and view.event in order:
        times = _instants(rows[view.event])
        oldest = moment - timedelta(hours=view.max_age_hours)
        since = pa.scalar(oldest).cast(times.type)
        rows = rows.filter(pc.greater_equal(times, since))
    return rows.sort_by([(name, "ascending") for name in order]) if order else rows


def _order(row: _Row, view: FeatureView) -> list[Any]:
    """What tells of two rows that a view may find which one it does."""
    told = [view.event, view.created or ""]
    return [row[name] for name in told if name in row]


def _oldest_that_counts(row: _Row, view: FeatureView) -> date:
    """The first day of a table in which there may be a later row than this one.

    A late file's day holds what happened before. No day holds what happens two days after it.
    """
    at = row[view.event]
    if isinstance(at, datetime):
        at = (at.astimezone(UTC) if at.tzinfo else at).date()
    # Of a text only Spark knows the instant; then the day alone decides.
    return at - timedelta(days=1) if isinstance(at, date) else date.max


def _instants(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The values, of a day its midnight, as which Spark compares it."""
    is_day = pa.types.is_date(column.type)
    return column.cast(pa.timestamp("us", "UTC")) if is_day else column


def _named(key: _Row) -> str:
    return " ".join(f"{name}={value}" for name, value in key.items())


def _first_and_last(files: Sequence[str]) -> str | None:
    if len(files) > 1:
        return f"{files[0]} … {files[-1]} ({len(files)} files)"
    return files[0] if files else None
