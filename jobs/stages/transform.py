"""Stage `transform`: makes the derived tables.

Each is made by the function of its name in `jobs/transforms/<pipeline>.py`, for the days of the
run. A table of the moment is made for each night from what was known by then, another one from
what is known last; and where that was found late and a day has no rows yet, first from what was
known before, so that nights which have passed see that.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from functools import reduce
from itertools import groupby
from typing import TYPE_CHECKING

from pyspark.errors import PySparkException
from pyspark.sql import DataFrame
from pyspark.sql.types import (
    ArrayType,
    CalendarIntervalType,
    DataType,
    DayTimeIntervalType,
    GeographyType,
    GeometryType,
    MapType,
    StructType,
    TimeType,
    VariantType,
    YearMonthIntervalType,
)

from jobs.lake import commits, staging, tables
from jobs.lake.knowledge import Knowledge
from jobs.lake.publications import Input, Origin
from jobs.lake.transforms import Transform, definitions_of_data, require_dates, transform_of
from jobs.spark.session import connect
from jobs.stages.moments import refusing_late_moments, require_instants
from pipelines.days import Days
from pipelines.errors import explaining, refuse_unless
from pipelines.spec import PREDICTIONS

if TYPE_CHECKING:
    from jobs.lake.knowledge import Seen
    from pipelines.run import Run
    from pipelines.spec import Pipeline, Table

_Asked = Mapping[date, date | None]
"""By night the one from whose knowledge its rows are made; None: from what is known last."""
_TABLES_AT_ONCE = 3
"""The server plans one table while it computes another; more would only wait for its cores."""
_WAYS_OUT: Mapping[type[DataType], str] = {
    MapType: "to_json({})",
    VariantType: "to_json({})",
    CalendarIntervalType: "CAST({} AS STRING)",
    DayTimeIntervalType: "CAST({} AS STRING)",
    YearMonthIntervalType: "CAST({} AS STRING)",
    TimeType: "CAST({} AS STRING)",
    GeometryType: "ST_AsBinary({})",
    GeographyType: "ST_AsBinary({})",
}
"""Types that Spark cannot write, or by whose values it cannot tell whether rows say the same; and
what says as much of one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Making:
    """A derived table, and how its rows are made."""

    table: Table
    function: Transform
    definition: str

    def told(self, run: Run) -> str:
        """The function, for people."""
        return f"`{self.table.name}` of jobs/transforms/{run.pipeline.name}.py"


def transform(run: Run) -> dict[str, object]:
    """Stage every derived table that the run is about.

    Returns:
        Rows staged, in all and by table.

    Raises:
        UsageError: a declared table has no function, or one that asks Spark for what is not there.
    """
    # Spark's functions work without a JVM only from the first session on.
    connect(run.environment)
    # All before the first is called: a missing function costs no work.
    defined = definitions_of_data(run.pipeline)
    makings = [
        _Making(
            table=table,
            function=transform_of(run.pipeline, table),
            definition=defined[table.name],
        )
        for table in run.pipeline.derived
        if run.makes(table.name)
    ]
    # Predictions too: else rows were made anew by a declaration that the night cannot end with.
    for name in (*(table.name for table in run.pipeline.derived), PREDICTIONS):
        commits.refuse_another_partition(run, name)
    tables.unstage_others(run)
    # Before anything is read: what is replaced meanwhile makes these rows too old to be published.
    knowledge = Knowledge.of_now(run)
    staged: dict[str, Future[int]] = {}
    with ThreadPoolExecutor(_TABLES_AT_ONCE) as pool:
        for making in makings:
            # What this run makes itself; anything else is published already.
            inputs = [staged[name] for name in making.table.reads if name in staged]
            staged[making.table.name] = pool.submit(_stage, run, making, inputs, knowledge)
    rows = {name: future.result() for name, future in staged.items()}
    return {"rows_staged": sum(rows.values()), "tables": rows}


def _stage(
    run: Run,
    making: _Making,
    inputs: list[Future[int]],
    knowledge: Knowledge,
) -> int:
    # Inputs were submitted before, so they run or have run: waiting for them holds up nothing that
    # they need.
    for staged in inputs:
        staged.result()
    table = making.table
    nights = {night: _asked(table, night, knowledge) for night in run.days}
    origin = _origin(run, making, nights, knowledge)
    name = run.pipeline.name
    function = making.told(run)
    with explaining(PySparkException, f"{name}.{table.name} cannot be made as {function} says"):
        rows = _rows(run, making, nights, knowledge)
        _refuse_odd_rows(rows, run.pipeline, table, function)
        if table.name == run.pipeline.entity_table:
            rows = refusing_late_moments(rows, run.pipeline)
        count = tables.stage_rows(run, table.name, rows, origin=origin)
    fresh = staging.require(run, table.name)
    # For the tables that read this one.
    checksums = {day: fresh.checksum(day) for day in fresh.days}
    knowledge.add_staged(table.name, checksums, origin.known)
    return count


def _asked(table: Table, night: date, knowledge: Knowledge) -> date | None:
    """The night from whose knowledge the rows of one are made; None: from what is known last."""
    return night if table.is_of_the_moment else knowledge.made_as_of(table, night)


def _origin(run: Run, making: _Making, nights: _Asked, knowledge: Knowledge) -> Origin:
    table = making.table
    needed = {}
    known = {}
    for night, asked in nights.items():
        inputs = _inputs(run, table, night, asked, knowledge)
        needed[table.day_of(night)] = inputs
        if table.is_of_the_moment:
            known[table.day_of(night)] = knowledge.known_day_of_moment(table, night)
        else:
            known[table.day_of(night)] = asked or knowledge.known_day(inputs, night)
    return Origin(definition=making.definition, inputs=needed, known=known)


def _rows(run: Run, making: _Making, nights: _Asked, knowledge: Knowledge) -> DataFrame:
    table = making.table
    parts = []
    for piece, asked in _pieces(table, nights, knowledge):
        if asked is None:
            seen = {name: knowledge.latest(name) for name in table.reads}
        else:
            seen = {name: knowledge.seen_by(name, asked) for name in table.reads}
        parts.append(_make(run, making, piece, knowledge, seen))
    return reduce(DataFrame.unionByName, parts)


def _pieces(
    table: Table,
    nights: _Asked,
    knowledge: Knowledge,
) -> Iterator[tuple[Days, date | None]]:
    """The run's nights in parts, each with the night from whose knowledge all of it is made."""

    def told_apart_by(night: date) -> tuple[bool, date | None]:
        asked = nights[night]
        return (True, None) if asked == night else (False, asked)

    for (is_own, asked), alike in groupby(nights, told_apart_by):
        first, *others = alike
        days = Days(first, max(others, default=first))
        if is_own:
            # Each as of itself, and most of them see the same: a year is not made day by day.
            for piece in knowledge.pieces(table.reads, days):
                yield piece, piece.last
        else:
            yield days, asked


def _make(
    run: Run,
    making: _Making,
    days: Days,
    knowledge: Knowledge,
    seen: Mapping[str, Seen],
) -> DataFrame:
    """The rows of some of the run's days, made from the versions that are seen."""
    frames = {}
    for name in making.table.reads:
        wanted = _days_read(run, making.table, name, days, knowledge)
        rows = _input(run, name, wanted)
        unseen = knowledge.unseen(name, wanted, seen[name])
        frames[name] = tables.as_seen(run, name, rows, unseen, seen[name])
    rows = making.function(**frames, days=days)
    refuse_unless(
        isinstance(rows, DataFrame),
        f"{making.told(run)} gave {rows!r} for {days}: it must return a DataFrame with the rows of "
        f"{making.table.name}.",
    )
    return rows


def _refuse_odd_rows(
    rows: DataFrame,
    pipeline: Pipeline,
    table: Table,
    function: str,
) -> None:
    """Refuse rows that do not tell their day, or what identifies them; or what is to be scored."""
    needed = [table.partition, *table.key]
    dates = [table.partition]
    says = f"each row must tell its day ({table.partition}) and the key that its table declares"
    if table.name == pipeline.entity_table:
        needed += ["event_timestamp", *pipeline.entity]
        dates.append(pipeline.event_date)
        says += f", and as what is scored event_timestamp and {', '.join(pipeline.entity)}"
    missing = [name for name in needed if name not in rows.columns]
    refuse_unless(
        not missing,
        f"{function} gave rows without {', '.join(dict.fromkeys(missing))}: {says}. It gave "
        f"{', '.join(rows.columns)}.",
    )
    require_dates(rows.schema, dates, function)
    if table.name == pipeline.entity_table:
        require_instants(rows.schema, function)
    for column in rows.schema:
        # A map cannot be summed up, and what is volatile is not.
        is_volatile_map = column.name in table.volatile and isinstance(column.dataType, MapType)
        odd = None if is_volatile_map else _not_kept(column.dataType)
        way_out = _WAYS_OUT.get(type(column.dataType), "to_json({})")
        refuse_unless(
            odd is None,
            f"{function} gave {column.name} of {pipeline.name}.{table.name} as "
            f"{column.dataType.simpleString()}, and no table keeps {odd}: have it give "
            f"`{way_out.format(column.name)}` in its place, or what is needed of it as columns.",
        )


def _not_kept(kind: DataType) -> str | None:
    """What a type is, or is made of, that no table keeps; None: nothing."""
    parts: list[DataType] = []
    if isinstance(kind, ArrayType):
        parts = [kind.elementType]
    elif isinstance(kind, StructType):
        parts = [field.dataType for field in kind]
    elif type(kind) in _WAYS_OUT:
        # Without what it is of: the column's whole type is told beside it.
        return re.split(r"\W", kind.simpleString())[0]
    return next(filter(None, map(_not_kept, parts)), None)


def _inputs(
    run: Run,
    table: Table,
    day: date,
    asked: date | None,
    knowledge: Knowledge,
) -> tuple[Input, ...]:
    """What the rows of one day are made from, as a night knew it."""
    nights = Days.of(asked) if asked else None
    found = []
    for name in table.reads:
        days = _days_read(run, table, name, Days.of(day), knowledge)
        found.append(knowledge.table_input(name, days, nights))
    return tuple(found)


def _days_read(
    run: Run,
    table: Table,
    name: str,
    days: Days,
    knowledge: Knowledge,
) -> Days:
    """The days of an input that some days of the table need: the window, or any day till then."""
    feeds = {feed.name: feed for feed in run.pipeline.feeds}
    if name in feeds and feeds[name].is_reference:
        # Its snapshot may be of a night before the first day that is declared by now.
        return Days(knowledge.first_day(name, run.pipeline.first_day), days.last)
    return days.since(table.window_days - 1)


def _input(run: Run, name: str, days: Days) -> DataFrame:
    """The last versions of a table's days, whether published or about to be.

    Of a reference feed whole snapshots.
    """
    if name in {feed.name for feed in run.pipeline.feeds}:
        # What is staged of a feed has been published before a transform begins.
        return tables.read(run, name, days)
    return tables.current(run, name, days)
