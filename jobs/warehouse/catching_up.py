"""Brings PostgreSQL to what the lake has: every day whose publication in force is newer there."""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from itertools import chain
from typing import TYPE_CHECKING

import psycopg
import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from pyarrow import dataset as arrow

from jobs.lake import datasets, publications
from jobs.lake.log import is_table
from jobs.lake.store_faults import what_store_says
from jobs.night import message_of
from jobs.warehouse import days, tables
from jobs.warehouse.connection import (
    LIMITS,
    Connection,
    Limits,
    WarehouseAway,
    in_words,
    opened,
    transaction,
)
from jobs.warehouse.shape import Shape, shape_of
from pipelines.days import Days
from pipelines.errors import NightshiftError, Refused
from pipelines.redaction import redacted

if TYPE_CHECKING:
    from jobs.lake.publications import Publication
    from pipelines.environment import Environment
    from pipelines.spec import Pipeline, Table

_ROWS_AT_ONCE = 50_000
"""That are sent to PostgreSQL together."""
_FAULTS_TOLD = 3
_OF_ONE_DAY = (NightshiftError, psycopg.Error, OSError, pa.ArrowException)
"""What may be wrong with a day, or with its files, and says nothing of the others."""
_OF_ONE_TABLE = (NightshiftError, DeltaError, OSError, pa.ArrowException)
"""What opening a table may raise, such as of a log that is broken."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Caught:
    """What became of a table."""

    table: str
    """Its SQL name."""
    current: tuple[date, ...] = ()
    """Days that PostgreSQL had already."""
    refused: tuple[date, ...] = ()
    """Days that it had already, of a table that is not as it should be: readers may see none."""
    behind: tuple[date, ...] = ()
    """Days that it lacks, or has of an older publication."""
    written: tuple[date, ...] = ()
    """Those of them that it has now."""
    rows: int = 0
    """In the days that were written."""
    faults: tuple[str, ...] = ()
    """Why the others were not."""
    notes: tuple[str, ...] = ()
    """What a person should set right, though nothing failed."""

    @property
    def left(self) -> tuple[date, ...]:
        """Days that are still behind."""
        return tuple(day for day in self.behind if day not in self.written)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Source:
    """A table of the lake at its newest version."""

    name: str
    known: days.Known
    in_force: Mapping[date, Publication]
    """By day, the oldest first."""
    rows: arrow.FileSystemDataset

    def of(self, shape: Shape, day: date) -> Iterator[pa.RecordBatch]:
        """The rows of a day, in batches.

        One row group of a file is in memory at once, as stored and as decoded: Spark writes groups
        of up to 128 MB, however large the day is.
        """
        own = arrow.field(shape.day) == pa.scalar(day)
        columns = list(shape.copied)
        for file in self.rows.get_fragments(filter=own):
            # A scan of the whole would read on while PostgreSQL takes what was read.
            for group in file.split_by_row_group():
                yield from group.to_batches(
                    schema=self.rows.schema,
                    columns=columns,
                    filter=own,
                    batch_size=_ROWS_AT_ONCE,
                    batch_readahead=1,
                )


def published_tables(pipeline: Pipeline) -> tuple[Table, ...]:
    """The tables of a pipeline that PostgreSQL gets."""
    return tuple(table for table in pipeline.tables if table.warehouse)


def catch_up(
    environment: Environment,
    pipeline: Pipeline,
    wanted: Collection[Table],
    limits: Limits = LIMITS,
    *,
    seconds: float | None = None,
    is_dry: bool = False,
) -> list[Caught]:
    """Publish every day of the tables that PostgreSQL has not got as it is in force in the lake.

    A table that was never published in the lake is left out. The newest day of a table is written
    first. A table that cannot be opened keeps no other one from being published, and so does a day
    that cannot be read or written.

    Args:
        environment: Whose lake and PostgreSQL they are.
        pipeline: Whose tables.
        wanted: The tables.
        limits: How long PostgreSQL may take.
        seconds: After so many no further day is begun, and a table leaves the others their share
            of them; None: all are.
        is_dry: Only tell what is behind.

    Raises:
        UsageError: no PostgreSQL is set, or its address makes no sense.
        WarehouseAway: it does not answer.
    """
    end = None if seconds is None else time.monotonic() + seconds
    found: list[Caught] = []
    with opened(environment, limits) as connection:
        for place, table in enumerate(wanted):
            name = f"{pipeline.name}.{table.name}"
            try:
                source = _source(environment, name)
            except _OF_ONE_TABLE as error:
                if what_store_says(error):
                    # It would say the same of every table.
                    raise
                why = message_of(error, environment.variables())
                found.append(Caught(table=name, faults=(why,)))
                continue
            if source is None:
                continue
            one = _Table(environment, connection, pipeline, table, source, limits)
            until = _share(end, len(wanted) - place)
            found.append(one.follow(until, is_dry=is_dry))
            if connection.closed:
                break
    return found


def _share(end: float | None, tables: int) -> float | None:
    """Until when the first of so many tables may take, of the time that they have until the end."""
    if end is None:
        return None
    now = time.monotonic()
    return now + (end - now) / tables


def _source(environment: Environment, name: str) -> _Source | None:
    """The table as it is now; None: it was never published."""
    place = environment.table_path(name)
    if not is_table(place):
        return None
    # Opened before the record is asked, which may tell of later versions meanwhile.
    newest = DeltaTable(place)
    version = newest.version()
    told = publications.told_by_name(environment, name)
    known = [one for one in told if one.version <= version]
    return _Source(
        name=name,
        known=days.Known(
            lake=str(newest.metadata().id),
            there=frozenset((one.day, one.version, one.published_at) for one in known),
            lost=frozenset((one.day, one.published_at) for one in told.all_lost),
        ),
        in_force=dict(sorted(publications.latest(known).items())),
        rows=datasets.in_force(environment, name, version),
    )


class _Table:
    """One table on its way into PostgreSQL."""

    def __init__(
        self,
        environment: Environment,
        connection: Connection,
        pipeline: Pipeline,
        table: Table,
        source: _Source,
        limits: Limits,
    ) -> None:
        self._environment = environment
        self._connection = connection
        self._pipeline = pipeline
        self._declared = table
        self._source = source
        self._limits = limits
        self._current: list[date] = []
        self._refused: list[date] = []
        self._behind: list[date] = []
        self._written: list[date] = []
        self._faults: list[str] = []
        self._notes: list[str] = []

    def follow(self, until: float | None, *, is_dry: bool) -> Caught:
        """Publish the days that PostgreSQL lacks, or only tell which these are."""
        try:
            shape = shape_of(self._pipeline, self._declared, self._source.rows.schema)
            held = self._compare(shape)
            if is_dry:
                self._examine(shape)
            else:
                self._provide(shape, held)
                self._write(shape, until)
        except (NightshiftError, psycopg.Error) as error:
            self._faults.append(_in_words(error))
        written = sorted(self._written)
        in_force = self._source.in_force
        return Caught(
            table=self._source.name,
            current=tuple(sorted(self._current)),
            refused=tuple(self._refused),
            behind=tuple(self._behind),
            written=tuple(written),
            rows=sum(in_force[day].rows for day in written),
            faults=self._told(),
            notes=tuple(self._notes),
        )

    def _examine(self, shape: Shape) -> None:
        """Tell what making the table would find, and change nothing."""
        with self._refusing():
            if tables.examine(self._connection, shape, self._limits):
                self._lack_all()

    def _provide(self, shape: Shape, held: Mapping[date, days.Held]) -> None:
        """Have the table be there, and what was changed by hand count as never published."""
        with self._refusing():
            provided = tables.provide(self._connection, shape, self._limits)
        self._notes += [provided.lacking] if provided.lacking else []
        changed = self._changed(held)
        if provided.is_anew:
            self._lack_all()
        elif changed:
            with transaction(self._connection, self._limits) as cursor:
                tables.act_as_owner(cursor)
                found = {day: held[day].version for day in changed}
                tables.forget(cursor, shape, found)

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        """A table that is refused has no day as it shall be."""
        try:
            yield
        except Refused:
            self._refused, self._current = self._current, []
            raise

    def _lack_all(self) -> None:
        self._behind = list(self._source.in_force)
        self._current = []

    def _compare(self, shape: Shape) -> Mapping[date, days.Held]:
        held = days.held(self._connection, shape, self._limits)
        current: list[date] = []
        behind: list[date] = []
        for day, one in self._source.in_force.items():
            found = held.get(day, days.NOTHING)
            is_older = found.is_older(self._source.known, one)
            (behind if is_older or not found.is_whole else current).append(day)
            if not is_older and found.version != one.version:
                self._require_known(day, found)
        self._current, self._behind = current, behind
        self._tell_of_others(held)
        self._tell_of_changed(held)
        return held

    def _require_known(self, day: date, found: days.Held) -> None:
        """Refuse a day that PostgreSQL has of a later version than the lake ever had.

        Raises:
            Refused: the lake's record, asked anew, tells of no such publication.
        """
        told = publications.of_table(self._environment, self._source.name, Days.of(day))
        if not found.is_of([one for one in told if one.day == day]):
            raise Refused(
                f"PostgreSQL holds {day} of version {found.version}, of which the lake has no "
                f"record: was it restored from a backup? If so, {days.ALL_ANEW}"
            )

    def _tell_of_others(self, held: Collection[date]) -> None:
        """Note the days that PostgreSQL has and the lake has not."""
        others = [day for day in held if day not in self._source.in_force]
        if others:
            self._notes.append(
                f"{self._source.name}: PostgreSQL has {len(others)} days that the lake has not, "
                f"the first is {others[0]}. If they are of no use, {days.ALL_ANEW}"
            )

    def _changed(self, held: Mapping[date, days.Held]) -> list[date]:
        in_force = self._source.in_force
        return [day for day, one in held.items() if day in in_force and not one.is_whole]

    def _tell_of_changed(self, held: Mapping[date, days.Held]) -> None:
        """Note the days of which somebody has deleted or added rows."""
        changed = self._changed(held)
        if changed:
            one = held[changed[0]]
            self._notes.append(
                f"{self._source.name}: rows of {len(changed)} days were changed by hand, the first "
                f"is {changed[0]} with {one.rows} rows instead of {one.recorded_rows}. They are "
                "published anew."
            )

    def _write(self, shape: Shape, until: float | None) -> None:
        # The newest first: it is what people wait for.
        newest_first = self._behind[::-1]
        for place, day in enumerate(newest_first):
            if until is not None and time.monotonic() > until:
                left = len(newest_first) - place
                self._faults.append(f"Time is up with {left} days left: the next night goes on.")
                return
            try:
                self._write_day(shape, day)
            except WarehouseAway:
                # It would say the same of every day, and make each wait.
                raise
            except _OF_ONE_DAY as error:
                self._faults.append(f"{day}: {_in_words(error)}")

    def _write_day(self, shape: Shape, day: date) -> None:
        try:
            self._write_rows(shape, day)
        except psycopg.errors.UniqueViolation as error:
            if not tables.breaks_key(shape, error):
                raise
            # A day of a wider key of before: the lake has these rows, too.
            tables.give_up_uniqueness(self._connection, shape, self._limits)
            self._write_rows(shape, day)
            self._notes.append(
                f"{self._source.name}: rows of {day} are not told apart by its key "
                f"({', '.join(shape.key)}). Its index in PostgreSQL is not unique any more."
            )

    def _write_rows(self, shape: Shape, day: date) -> None:
        one = self._source.in_force[day]
        rows = self._source.of(shape, day)
        known = self._source.known
        if days.write(self._connection, shape, known, one, rows, self._limits):
            self._written.append(day)
        else:
            # Another run has written it meanwhile.
            self._behind.remove(day)
            self._current.append(day)

    def _told(self) -> tuple[str, ...]:
        """The faults, or the first of many."""
        more = len(self._faults) - _FAULTS_TOLD
        shown = tuple(self._faults[:_FAULTS_TOLD])
        return (*shown, f"… and {more} more days") if more > 0 else shown


def _in_words(error: Exception) -> str:
    return in_words(error) if isinstance(error, psycopg.Error) else message_of(error)


def after_publication(
    environment: Environment,
    pipeline: Pipeline,
    names: Collection[str],
    limits: Limits = LIMITS,
) -> dict[str, object]:
    """Have PostgreSQL follow, once these tables were published in the lake; never raises.

    What fails is told on stderr and in the metrics: the lake has the days, and the next night
    publishes what this one could not.

    Returns:
        Metrics of the stage: days and rows that were written, and `warehouse_failed` with what
        failed. None when no PostgreSQL is set, or it gets none of the tables.
    """
    wanted = [table for table in published_tables(pipeline) if table.name in names]
    if environment.warehouse_url is None or not wanted:
        return {}
    try:
        found = catch_up(environment, pipeline, wanted, limits, seconds=limits.night)
    except Exception as error:  # whatever it is, the lake's publication stands
        return _failed(environment, [message_of(error, environment.variables())])
    metrics: dict[str, object] = {
        "warehouse_days": sum(len(one.written) for one in found),
        "warehouse_rows": sum(one.rows for one in found),
    }
    notes = chain.from_iterable(one.notes for one in found)
    for note in dict.fromkeys(notes):
        print(f"Warning: {note}", file=sys.stderr, flush=True)
    faults: list[str] = []
    for one in found:
        faults += [f"{one.table}: {fault}" for fault in one.faults]
    return metrics | (_failed(environment, faults) if faults else {})


def _failed(environment: Environment, faults: Sequence[str]) -> dict[str, object]:
    told = redacted("; ".join(faults), environment.variables())
    print(f"Warning: PostgreSQL is behind the lake: {told}", file=sys.stderr, flush=True)
    return {"warehouse_failed": told}
