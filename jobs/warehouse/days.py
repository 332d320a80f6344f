"""One day in PostgreSQL: which publication it holds, and putting a newer one in its place."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
from psycopg import sql
from pyarrow import csv

from jobs.warehouse.connection import Connection, Cursor, Limits, transaction
from jobs.warehouse.shape import TEXTS, Shape
from jobs.warehouse.tables import act_as_owner, has_bookkeeping, has_column
from pipelines.errors import NightshiftError, Refused

if TYPE_CHECKING:
    from jobs.lake.publications import Publication

_HELD = """
WITH there AS (SELECT {day} AS day, count(*) AS rows FROM {table} GROUP BY 1)
SELECT told.day, told.lake, told.version, told.checksum, told.published_at,
  told.rows, coalesce(there.rows, 0)
FROM nightshift.publications told LEFT JOIN there USING (day)
WHERE pipeline = {pipeline} AND table_name = {name} ORDER BY day
"""
_UNQUOTED_IS_NULL = csv.WriteOptions(include_header=False, quoting_style="needed")
"""Every text is quoted and no null is: that is how COPY tells them apart."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """What the lake tells of a table: by it a publication that PostgreSQL holds is known."""

    lake: str
    """Id of the Delta table, whatever version."""
    there: Collection[tuple[date, int, datetime]] = frozenset()
    """Day, version and instant of each publication that the table has."""
    lost: Collection[tuple[date, datetime]] = frozenset()
    """Day and instant of each that was in it before its folder was deleted, as far as recorded."""


@dataclass(frozen=True, slots=True)
class Held:
    """What PostgreSQL holds of a day, in the order in which it is asked for."""

    lake: str | None
    """Id of the Delta table that it came from."""
    version: int | None
    """Of that table; None: nothing was published."""
    checksum: str | None
    """Of the publication."""
    published_at: datetime | None = None
    """In the lake."""
    recorded_rows: int = 0
    """Of the publication, as it was written."""
    rows: int = 0
    """That are there."""

    @property
    def is_whole(self) -> bool:
        """Whether as many rows are there as were written: people may delete some by hand."""
        return self.recorded_rows == self.rows

    @property
    def instant(self) -> datetime | None:
        """When it was published; where clocks are set back, other zones compare as never equal."""
        return self.published_at and self.published_at.astimezone(UTC)

    def is_older(self, known: Known, one: Publication) -> bool:
        """Whether the publication of that table is to take its place.

        Raises:
            Refused: what is held came from another table, so that nobody knows which is newer.
        """
        if self.version is None:
            return True
        if self.lake != known.lake:
            self._require_lost(known, one.day)
            return True
        # A lake that was restored from a backup gives a version a second time, also to the same
        # rows. One that was confirmed has several instants.
        is_there = (one.day, self.version, self.instant) in known.there
        is_other = self.checksum != one.checksum or not is_there
        return self.version < one.version or (self.version == one.version and is_other)

    def _require_lost(self, known: Known, day: date) -> None:
        """Refuse what came from another table than that which was here before this one."""
        # Of a day without rows the lake keeps no record, and nothing is lost with it.
        if self.recorded_rows and (day, self.instant) not in known.lost:
            raise Refused(
                f"PostgreSQL holds {day} of a table of another lake (id {self.lake}, ours is "
                f"{known.lake}), or of one whose folder was deleted. Publish to another database, "
                f"or {ALL_ANEW}"
            )

    def is_of(self, told: Collection[Publication]) -> bool:
        """Whether it is one of these publications."""
        known = {(one.version, one.checksum) for one in told}
        return (self.version, self.checksum) in known


NOTHING = Held(None, None, None)
ALL_ANEW = (
    "have all days published anew: delete the rows of the table whose name begins with '_', and "
    "those of nightshift.publications (docs/how-to/postgresql.md)."
)


def held(connection: Connection, shape: Shape, limits: Limits) -> Mapping[date, Held]:
    """What PostgreSQL holds of a table, by day; nothing where the table is not there."""
    with transaction(connection, limits) as cursor:
        act_as_owner(cursor)
        if not (has_bookkeeping(cursor) and has_column(cursor, shape, shape.day)):
            return {}
        statement = sql.SQL(_HELD).format(
            day=sql.Identifier(shape.day),
            table=sql.Identifier(shape.schema, shape.table),
            # No parameter beside a name, which may hold a '%'.
            pipeline=sql.Literal(shape.schema),
            name=sql.Literal(shape.view),
        )
        cursor.execute(statement)
        found = cursor.fetchall()
    return {day: Held(*told) for day, *told in found}


def write(
    connection: Connection,
    shape: Shape,
    known: Known,
    one: Publication,
    rows: Iterable[pa.RecordBatch],
    limits: Limits,
) -> bool:
    """Put the rows of a publication in the place of those of its day, in one transaction.

    Returns:
        False when PostgreSQL holds the publication already, or a newer one: then nothing changes.

    Raises:
        Refused: the day came from another lake, or a text cannot be one of PostgreSQL.
        NightshiftError: not as many rows were read as were published.
        WarehouseAway: PostgreSQL cannot be used.
        psycopg.Error: it refuses the rows, or takes too long for them.
    """
    with transaction(connection, limits) as cursor:
        act_as_owner(cursor)
        if not _locked(cursor, shape, one.day).is_older(known, one):
            return False
        table = sql.Identifier(shape.schema, shape.table)
        day = sql.Identifier(shape.day)
        # No parameter beside a name, which may hold a '%'.
        own = sql.SQL("{} = {}").format(day, sql.Literal(one.day))
        cursor.execute(sql.SQL("DELETE FROM {} WHERE {}").format(table, own))
        copied = _copy(cursor, shape, rows)
        if copied != one.rows:
            raise NightshiftError(
                f"{shape.schema}.{shape.view} of {one.day}: {one.rows} rows were published, and "
                f"{copied} were read. PostgreSQL keeps what it had."
            )
        cursor.execute(
            "UPDATE nightshift.publications SET lake = %s, version = %s, run_id = %s, rows = %s, "
            "checksum = %s, published_at = %s, written_at = clock_timestamp() "
            "WHERE pipeline = %s AND table_name = %s AND day = %s",
            [
                *(known.lake, one.version, one.run_id, one.rows),
                *(one.checksum, one.published_at),
                *(shape.schema, shape.view, one.day),
            ],
        )
    return True


def _locked(cursor: Cursor, shape: Shape, day: date) -> Held:
    """What is held of the day, which nobody else can change until the transaction ends."""
    about = [shape.schema, shape.view, day]
    cursor.execute(
        "INSERT INTO nightshift.publications (pipeline, table_name, day) VALUES (%s, %s, %s) "
        "ON CONFLICT DO NOTHING",
        about,
    )
    cursor.execute(
        "SELECT lake, version, checksum, published_at, rows FROM nightshift.publications "
        "WHERE pipeline = %s AND table_name = %s AND day = %s FOR UPDATE",
        about,
    )
    found = cursor.fetchone()
    assert found is not None, "the row was inserted, or was there"
    return Held(*found)


def _copy(cursor: Cursor, shape: Shape, rows: Iterable[pa.RecordBatch]) -> int:
    """Stream the rows, a batch at a time, and return how many PostgreSQL took."""
    columns = sql.SQL(", ").join(map(sql.Identifier, shape.copied))
    table = sql.Identifier(shape.schema, shape.table)
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv)").format(table, columns)
    with cursor.copy(statement) as copy:
        for batch in rows:
            plain = _without_views(batch)
            _refuse_nul(plain)
            copy.write(_as_csv(plain))
    return cursor.rowcount


def _without_views(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The rows with views of texts, which Arrow neither searches nor writes, as texts."""
    columns: list[pa.Array] = []
    for values in batch.columns:
        is_view = values.type == pa.string_view()
        columns.append(values.cast(pa.large_string()) if is_view else values)
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _refuse_nul(batch: pa.RecordBatch) -> None:
    for name, values in zip(batch.schema.names, batch.columns, strict=True):
        if values.type not in TEXTS:
            continue
        has_nul = pc.match_substring(values, "\0")
        if pc.any(has_nul).as_py():
            raise Refused(
                f"column '{name}' holds a text with the character NUL, which PostgreSQL has not. "
                "Have it quarantined, or have the transform take it out."
            )


def _as_csv(batch: pa.RecordBatch) -> memoryview:
    sink = pa.BufferOutputStream()
    csv.write_csv(batch, sink, _UNQUOTED_IS_NULL)
    return memoryview(sink.getvalue())
