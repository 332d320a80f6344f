"""Tables as Arrow data sets: the rows in force, or every version of them. No row is copied.

Files of a table are never written again, so those that a publication has replaced are still there:
they are named by the version in which they were in force.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, DeltaProtocolError
from pyarrow import dataset as arrow

from jobs.lake import as_left, publications
from jobs.lake.arrow_files import dataset_of
from jobs.lake.knowledge import visible
from jobs.lake.store_faults import refuse_store_fault
from pipelines.errors import UsageError
from pipelines.spec import PREDICTIONS

if TYPE_CHECKING:
    from jobs.lake.publications import Publication
    from pipelines.environment import Environment

_KNOWN = pa.field("known_date", pa.date32())
_REVISION = pa.field("revision", pa.int32())
_IS_IN_FORCE = pa.field("is_in_force", pa.bool_())
OF_HISTORY = pa.schema([_KNOWN, _REVISION, _IS_IN_FORCE])
"""The columns that a history has beside those of its table."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Revision:
    """Which of the versions of its day it is."""

    number: int
    """From 1."""
    known: date | None
    """The night from which it is known; None: no record tells."""


_Revisions = dict[date, _Revision]
_FIRST = _Revision(number=1, known=None)


def in_force(
    environment: Environment,
    name: str,
    version: int | None = None,
    filtered: Collection[str] = (),
) -> arrow.FileSystemDataset:
    """The rows of a table as of now, or as they were in a version.

    Args:
        environment: Whose lake it is.
        name: SQL name of the table.
        version: Of the table; None: the newest.
        filtered: See `dataset_of`.

    Raises:
        UsageError: another program has turned on a feature that would be read wrongly, or files of
            the version have been deleted.
    """
    return _rows(environment, name, _table(environment, name, version), filtered=filtered)


def history(
    environment: Environment,
    name: str,
    version: int | None = None,
    filtered: Collection[str] = (),
    at: datetime | None = None,
) -> arrow.FileSystemDataset:
    """Every version of each day: of predictions all that were served, else all that a night sees.

    Beside the newest version of the table only those are opened of which rows were replaced.

    Args:
        environment: Whose lake it is.
        name: SQL name of the table.
        version: Of the table: what was in force until then; None: until now.
        filtered: See `dataset_of`.
        at: When that version was read; see `publications.by_then`.

    Returns:
        The table's columns, then `known_date` (the night from which the version is known),
        `revision` (1, 2, …, by day) and `is_in_force`.

    Raises:
        UsageError: another program has turned on a feature that would be read wrongly, or files of
            the version have been deleted; or the table has such a column of its own, or no days.
    """
    # Opened before the record is asked, which may tell of later versions meanwhile.
    newest = _table(environment, name, version)
    day = _day_column(newest, name)
    current, superseded = _revisions(environment, name, newest.version(), at)
    rows = _rows(environment, name, newest, filtered=filtered)
    _refuse_own_columns(name, rows.schema.names)
    files = list(_told(rows, day, current, is_in_force=True))
    for version, revisions in superseded.items():
        older = _older(environment, name, version)
        days = [str(one) for one in revisions]
        replaced = _rows(environment, name, older, [(day, "in", days)], filtered)
        files += _told(replaced, day, revisions, is_in_force=False)
    schema = pa.schema([*rows.schema, *OF_HISTORY])
    return arrow.FileSystemDataset(files, schema, rows.format, rows.filesystem)


def _day_column(table: DeltaTable, name: str) -> str:
    """The column of days that its publications replace; another program's table may have none."""
    columns = table.metadata().partition_columns
    if len(columns) != 1:
        raise UsageError(
            f"{name} is not partitioned by one column of days, as tables of pipelines are, so it "
            f"has no history and no night knows it. Ask for its versions: {name} VERSION AS OF 0."
        )
    return columns[0]


def _refuse_own_columns(table: str, columns: Collection[str]) -> None:
    known = {column.lower(): column for column in columns}
    for column in OF_HISTORY.names:
        if column in known:
            raise UsageError(
                f"{table} has a column '{known[column]}' of its own, and so no history, which has "
                "another one of that name. Ask for its versions one by one, as in "
                f"{table} VERSION AS OF 0: ops.publications has those of each day."
            )


def known_by(
    environment: Environment, name: str, night: date, filtered: Collection[str] = ()
) -> arrow.FileSystemDataset:
    """The rows of a table as a night saw them: of each day the last version known by then.

    Args:
        environment: Whose lake it is.
        name: SQL name of the table.
        night: The night.
        filtered: See `dataset_of`.

    Raises:
        UsageError: another program has turned on a feature that would be read wrongly; or the table
            has no days.
    """
    # Opened before the record is asked, which may tell of later versions meanwhile.
    newest = _table(environment, name, None)
    column = _day_column(newest, name)
    rows = _rows(environment, name, newest, filtered=filtered)
    files = []
    for version, days in _seen(environment, name, night, newest.version()).items():
        then = _older(environment, name, version)
        seen = _rows(environment, name, then, [(column, "in", days)], filtered)
        files += seen.get_fragments()
    return arrow.FileSystemDataset(files, rows.schema, rows.format, rows.filesystem)


def _seen(
    environment: Environment,
    name: str,
    night: date,
    newest: int,
) -> dict[int, list[str]]:
    """By version of the table the days that the night saw as they were in it."""
    seen: dict[date, int] = {}
    for one in _publications(environment, name, newest):
        # What no record dates is known from its own day.
        if one.is_known_by(night) and (one.known_day is not None or one.day <= night):
            seen[one.day] = one.version
    days: dict[int, list[str]] = {}
    for day, version in seen.items():
        days.setdefault(version, []).append(str(day))
    return days


def _table(environment: Environment, name: str, version: int | None) -> DeltaTable:
    if version is None:
        return DeltaTable(environment.table_path(name))
    return as_left.open_at(environment, name, version)


def _older(environment: Environment, name: str, version: int) -> DeltaTable:
    # What the record names is there, unless another program has cleaned the table.
    try:
        return DeltaTable(environment.table_path(name), version=version)
    except (DeltaError, OSError) as error:
        refuse_store_fault(error)
        raise UsageError(
            f"{name} cannot be opened any more as it was in version {version}: {error}. "
            "Nightshift itself deletes no version that its record needs: restore the table's log."
        ) from None


def _rows(
    environment: Environment,
    name: str,
    table: DeltaTable,
    only: list[tuple[str, str, object]] | None = None,
    filtered: Collection[str] = (),
) -> arrow.FileSystemDataset:
    mapping = table.metadata().configuration.get("delta.columnMapping.mode", "none")
    if mapping != "none":
        raise UsageError(
            f"{name} uses Delta column mapping ('{mapping}'), "
            "which this reader would read wrongly. Query it through Spark."
        )
    try:
        return dataset_of(table, environment.table_path(name), only, filtered)
    except DeltaProtocolError as error:
        raise UsageError(
            f"{name} uses what this reader of Delta cannot read: {error} Query it through Spark."
        ) from None


def _revisions(
    environment: Environment, name: str, newest: int, at: datetime | None
) -> tuple[_Revisions, dict[int, _Revisions]]:
    """The revisions in force, and by version those that were in force in it and are not now."""
    current: _Revisions = {}
    lost = publications.lost_revisions(environment, name) if _is_served(name) else []
    there: Counter[date] = Counter()
    versions: dict[date, int] = {}
    superseded: dict[int, _Revisions] = {}
    for one in _publications(environment, name, newest, at):
        before = current.get(one.day)
        if before is not None:
            superseded.setdefault(versions[one.day], {})[one.day] = before
        there[one.day] += 1
        number = there[one.day] + publications.lost_before(one, lost)
        current[one.day] = _Revision(number=number, known=one.known_day)
        versions[one.day] = one.version
    return current, superseded


def _publications(
    environment: Environment, name: str, newest: int, at: datetime | None = None
) -> list[Publication]:
    """Those that are told as revisions: of predictions all, for what was served stays.

    Args:
        environment: Whose lake it is.
        name: SQL name of the table.
        newest: Its version after which nothing counts, nor hides what was before it.
        at: When that was read; see `publications.by_then`.
    """
    is_served = _is_served(name)
    ask = publications.revisions if is_served else publications.of_table
    until = publications.by_then(ask(environment, name), newest, at)
    return until if is_served else visible(until)


def _is_served(name: str) -> bool:
    return name.endswith(f".{PREDICTIONS}")


def _told(
    rows: arrow.FileSystemDataset,
    day: str,
    revisions: Mapping[date, _Revision],
    *,
    is_in_force: bool,
) -> Iterator[arrow.ParquetFileFragment]:
    """The files, each of which holds one day, with the columns of their revision."""
    force = arrow.field(_IS_IN_FORCE.name) == is_in_force
    for file in rows.get_fragments():
        folder = file.partition_expression
        of_day = arrow.get_partition_keys(folder)[day]
        # A home of long ago has days that no record tells of.
        one = revisions.get(of_day, _FIRST)
        number = arrow.field(_REVISION.name) == pa.scalar(one.number, _REVISION.type)
        told = folder & number & force
        if one.known is not None:
            told &= arrow.field(_KNOWN.name) == pa.scalar(one.known, _KNOWN.type)
        yield rows.format.make_fragment(file.path, rows.filesystem, told)
