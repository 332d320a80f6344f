"""Brings PostgreSQL to what the lake has: every day whose publication in force is newer there."""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

import psycopg
import pyarrow as pa
from deltalake import DeltaTable
from pyarrow import dataset as arrow

from jobs.lake import datasets, publications
from jobs.night import message_of
from jobs.warehouse import days, tables
from jobs.warehouse.connection import (
    LIMITS,
    Connection,
    Limits,
    WarehouseAway,
    in_words,
    opened,
)
from jobs.warehouse.shape import Shape, shape_of
from pipelines.errors import NightshiftError
from pipelines.redaction import redacted

if TYPE_CHECKING:
    from jobs.lake.publications import Publication
    from pipelines.environment import Environment
    from pipelines.spec import Pipeline, Table

_ROWS_AT_ONCE = 50_000
"""Of a day in memory, however many it has."""
_FAULTS_TOLD = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Caught:
    """What became of a table."""

    table: str
    """Its SQL name."""
    current: tuple[date, ...] = ()
    """Days that PostgreSQL had already."""
    behind: tuple[date, ...] = ()
    """Days that it lacks, or has of an older publication."""
    written: tuple[date, ...] = ()
    """Those of them that it has now."""
    rows: int = 0
    """In the days that were written."""
    faults: tuple[str, ...] = ()
    """Why the others were not."""
    note: str = ""
    """What a person should set right, though nothing failed."""

    @property
    def left(self) -> tuple[date, ...]:
        """Days that are still behind."""
        return tuple(day for day in self.behind if day not in self.written)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Source:
    """A table of the lake at its newest version."""

    name: str
    lake: str
    """Id of the Delta table, whatever version."""
    in_force: dict[date, Publication]
    rows: arrow.Dataset

    def of(self, shape: Shape, day: date) -> Iterator[pa.RecordBatch]:
        """The rows of a day, in batches."""
        own = arrow.field(shape.day) == pa.scalar(day)
        columns = list(shape.copied)
        yield from self.rows.to_batches(columns=columns, filter=own, batch_size=_ROWS_AT_ONCE)


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

    A table that was never published in the lake is left out. A day that PostgreSQL refuses keeps
    no other one from being published.

    Args:
        environment: Whose lake and PostgreSQL they are.
        pipeline: Whose tables.
        wanted: The tables.
        limits: How long PostgreSQL may take.
        seconds: After so many no further day is begun; None: all are.
        is_dry: Only tell what is behind.

    Raises:
        UsageError: no PostgreSQL is set, or its address makes no sense.
        WarehouseAway: it does not answer.
    """
    until = None if seconds is None else time.monotonic() + seconds
    found: list[Caught] = []
    with opened(environment, limits) as connection:
        for table in wanted:
            source = _source(environment, f"{pipeline.name}.{table.name}")
            if source is None:
                continue
            one = _Table(connection, pipeline, table, source, limits)
            found.append(one.follow(until, is_dry=is_dry))
            if connection.closed:
                break
    return found


def _source(environment: Environment, name: str) -> _Source | None:
    """The table as it is now; None: it was never published."""
    place = environment.table_path(name)
    if not DeltaTable.is_deltatable(place):
        return None
    # Opened before the record is asked, which may tell of later versions meanwhile.
    newest = DeltaTable(place)
    version = newest.version()
    told = publications.of_table(environment, name)
    known = [one for one in told if one.version <= version]
    return _Source(
        name=name,
        lake=str(newest.metadata().id),
        in_force=dict(sorted(publications.latest(known).items())),
        rows=datasets.in_force(environment, name, version),
    )


class _Table:
    """One table on its way into PostgreSQL."""

    def __init__(
        self,
        connection: Connection,
        pipeline: Pipeline,
        table: Table,
        source: _Source,
        limits: Limits,
    ) -> None:
        self._connection = connection
        self._pipeline = pipeline
        self._declared = table
        self._source = source
        self._limits = limits
        self._current: list[date] = []
        self._behind: list[date] = []
        self._written: list[date] = []
        self._faults: list[str] = []
        self._note = ""

    def follow(self, until: float | None, *, is_dry: bool) -> Caught:
        """Publish the days that PostgreSQL lacks, or only tell which these are."""
        try:
            shape = shape_of(self._pipeline, self._declared, self._source.rows.schema)
            self._compare()
            if not is_dry:
                self._note = tables.provide(self._connection, shape, self._limits)
                self._write(shape, until)
        except (NightshiftError, psycopg.Error) as error:
            self._faults.append(_in_words(error))
        in_force = self._source.in_force
        return Caught(
            table=self._source.name,
            current=tuple(self._current),
            behind=tuple(self._behind),
            written=tuple(self._written),
            rows=sum(in_force[day].rows for day in self._written),
            faults=self._told(),
            note=self._note,
        )

    def _compare(self) -> None:
        names = (self._pipeline.name, self._declared.name)
        held = days.held(self._connection, *names, self._limits)
        nothing = days.Held(lake=None, version=None)
        current: list[date] = []
        behind: list[date] = []
        for day, one in self._source.in_force.items():
            is_older = held.get(day, nothing).is_older(self._source.lake, one)
            (behind if is_older else current).append(day)
        self._current, self._behind = current, behind

    def _write(self, shape: Shape, until: float | None) -> None:
        for place, day in enumerate(self._behind):
            if until is not None and time.monotonic() > until:
                left = len(self._behind) - place
                self._faults.append(f"Time is up with {left} days left: the next night goes on.")
                return
            try:
                self._write_day(shape, day)
            except WarehouseAway:
                # It would say the same of every day, and make each wait.
                raise
            except (NightshiftError, psycopg.Error) as error:
                self._faults.append(f"{day}: {_in_words(error)}")
            else:
                self._written.append(day)

    def _write_day(self, shape: Shape, day: date) -> None:
        one = self._source.in_force[day]
        rows = self._source.of(shape, day)
        days.write(self._connection, shape, self._source.lake, one, rows, self._limits)

    def _told(self) -> tuple[str, ...]:
        """The faults, or the first of many."""
        more = len(self._faults) - _FAULTS_TOLD
        shown = tuple(self._faults[:_FAULTS_TOLD])
        return (*shown, f"… and {more} more days") if more > 0 else shown


def _in_words(error: NightshiftError | psycopg.Error) -> str:
    return in_words(error) if isinstance(error, psycopg.Error) else str(error)


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
    notes = [one.note for one in found if one.note]
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
