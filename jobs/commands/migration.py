"""How a raw table differs from what its feed declares by now, and what can be done about it.

A new column takes a commit of the log alone: older files lack it, and every reader shows null. A
column of another type takes files of that type for all days, written and published as any others:
Delta has one type a column, and not every reader would read an old file as the new one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from deltalake import DeltaTable, Field, PostCommitHookProperties
from deltalake.schema import PrimitiveType
from pyspark.sql import functions as F

from jobs.ingestion import records
from jobs.ingestion.records import COMPLAINT, reread
from jobs.lake import commits, publications, staging, tables
from jobs.lake.definition import digest
from jobs.lake.knowledge import visible
from jobs.lake.locations import path
from jobs.lake.partitions import column_types, published_days
from jobs.lake.publications import Origin

if TYPE_CHECKING:
    from datetime import date

    from pyspark.sql import DataFrame

    from pipelines.feeds import Feed
    from pipelines.run import Run

_DELTA_TYPES = {"int": "integer"}
"""Declared type -> Delta's name of it, where that is another."""
_READABLE = frozenset({("integer", "long"), ("integer", "double")})
"""Types as which each value of another is read without loss; a text may be read as any."""
Kind = Literal["new", "gone", "added by files", "other type", "twin"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """A column that is not in the table as its feed declares it."""

    feed: Feed
    column: str
    kind: Kind
    before: str = ""
    """Its type in the table, as Delta writes it; of a twin its name there."""
    after: str = ""
    """Its declared type, as Delta writes it."""

    @property
    def is_readable(self) -> bool:
        """Whether it is of another type, whose values can be read as the declared one."""
        if self.kind != "other type":
            return False
        kinds = (self.before, self.after)
        return self.before == "string" or kinds in _READABLE


def changes(run: Run, feed: Feed) -> list[Change]:
    """The columns of a raw table that differ from its declaration; none before it is published."""
    there = column_types(run, feed.name)
    if not there:
        return []
    found = []
    for column in feed.columns:
        declared = _DELTA_TYPES.get(column.type, column.type)
        if there.get(column.name) != declared:
            found.append(_change(feed, column.name, declared, there))
    for name in feed.undeclared(there):
        is_added = feed.new_columns == "add" and there[name] == "string"
        kind: Kind = "added by files" if is_added else "gone"
        before = there[name]
        found.append(Change(feed=feed, column=name, kind=kind, before=before))
    return found


def add(run: Run, found: Sequence[Change]) -> None:
    """Add declared columns to their table, in one commit of the log alone."""
    place = path(run, found[0].feed.name)
    publications.forget_lost(run, found[0].feed.name)
    fields = [Field(one.column, PrimitiveType(one.after), nullable=True) for one in found]
    hooks = PostCommitHookProperties(create_checkpoint=True, cleanup_expired_logs=False)
    DeltaTable(place).alter.add_columns(fields, post_commithook_properties=hooks)


def unreadable(run: Run, one: Change) -> str | None:
    """What of the column cannot be read as its declared type, and where; None: all can."""
    rows = _read_as_declared(tables.read(run, one.feed.name), one)
    return _told(rows.where(F.col(COMPLAINT).isNotNull()), "value(s)")


def sharing_keys(run: Run, found: Sequence[Change]) -> str | None:
    """Which rows have one key when these columns are read anew, and where; None: none has."""
    feed = found[0].feed
    sharing = records.sharing_keys(_all_reread(run, found), feed)
    return _told(sharing, "row(s)")


def _told(wrong: DataFrame, what: str) -> str | None:
    count = F.count(F.lit(1))
    first = F.min(F.struct("source_file", "source_line", COMPLAINT))
    found = wrong.agg(count.alias("count"), first.alias("first")).first()
    assert found is not None, "an aggregation without keys has one row"
    if not found["count"]:
        return None
    file, line, complaint = found["first"]
    return f"{found['count']} {what}, the first in {file}, line {line}: {complaint}"


def corrected_days(run: Run, feed: Feed) -> list[date]:
    """The days of which nights before a correction see other rows than those in force."""
    seen = Counter(one.day for one in visible(publications.every(run, feed.name)))
    return sorted(day for day, versions in seen.items() if versions > 1)


def rewrite(run: Run, found: Sequence[Change]) -> None:
    """Publish all days of a table anew, with these columns in their declared types.

    Each stays made from what it was made from, by another definition, and known from when it was.
    A day that was corrected is known from its own night on, as when it is restated: what older
    nights saw is in the old type.
    """
    feed = found[0].feed
    rows = _all_reread(run, found)
    restated = corrected_days(run, feed)
    # One that was corrected to no rows has no file by now, and nights before see what it had.
    days = sorted({*published_days(run, feed.name), *restated})
    known = publications.in_force(run, feed.name)
    inputs = {day: known[day].inputs for day in days if day in known}
    since = {day: one.known_day for day, one in known.items() if one.known_day}
    kept = {day: night for day, night in since.items() if day not in restated}
    origin = Origin(definition=digest(feed, "migrated"), inputs=inputs, known=kept)
    written = staging.write(run, feed.name, rows, days, origin)
    commits.publish(run, feed.name, written)


def _change(
    feed: Feed,
    name: str,
    declared: str,
    there: Mapping[str, str],
) -> Change:
    # Spark and DuckDB take names that differ only in case for one.
    twins = [known for known in there if known.lower() == name.lower()]
    kind: Kind = "twin" if twins else "new"
    before = "".join(twins[:1])
    if name in there:
        kind, before = "other type", there[name]
    return Change(
        feed=feed,
        column=name,
        kind=kind,
        before=before,
        after=declared,
    )


def _all_reread(run: Run, found: Sequence[Change]) -> DataFrame:
    rows = tables.read(run, found[0].feed.name)
    for one in found:
        rows = _read_as_declared(rows, one).drop(COMPLAINT)
    return rows


def _read_as_declared(rows: DataFrame, one: Change) -> DataFrame:
    return reread(rows, one.feed, one.feed.column(one.column))
