"""The platform's own small tables under `<lake>/ops/`, written by delta-rs and never by Spark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from dataclasses import replace as with_changes
from datetime import UTC, date, datetime, timedelta
from itertools import count
from threading import local
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable, QueryBuilder, write_deltalake
from deltalake.exceptions import CommitFailedError

from jobs.lake.file_systems import file_system
from jobs.lake.log import Mark, actions, is_table, marks, newest_from
from jobs.services import locks
from pipelines.environment import Environment
from pipelines.errors import no_such
from pipelines.run import Run

_INSTANT = pa.timestamp("us", tz="UTC")
"""Microseconds are what Delta keeps."""
_TEXT = pa.string()
_DAY = pa.date32()
_NUMBER = pa.int64()
_REAL = pa.float64()

_MOST_FILES = 50
"""Of a table. Each append adds one, and every read opens all that may hold its rows."""
_ATTEMPTS = 10
"""To commit, each of which delta-rs itself repeats until it has lost too often."""
_PROPERTIES = {
    "delta.checkpointInterval": "10",
    "delta.deletedFileRetentionDuration": "interval 1 days",
    "delta.logRetentionDuration": "interval 1 days",
}
"""Of a new table. Commits are small and many: the default of 100 of them between two checkpoints is
a long log to read. Nobody reads an old version of these tables, and each append takes the longer
the more files lie in the folder of the log: 6 ms beside a few, 30 beside 3,400."""

TICK = timedelta(microseconds=1)
"""The least that a Delta table can tell two instants apart by."""
_IN_ORDER = {"model_events": "created_at", "alerts": "told_at"}
"""Tables that are compared with each other, each with the column of its instants."""

Condition = tuple[str, str, object]
"""Column, SQL operator, and what it is compared with: a text, a day, or an instant with a zone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """All rows of a table as of one version."""

    version: int
    mark: Mark | None
    """None: it is not there, or was gone again before it could be kept."""
    rows: pa.Table
    reading: int
    """Number of the reading of the whole table: these rows are those of before, each in its place,
    and what was added since."""


_KEPT: dict[str, Kept] = {}
"""By path or URL of the table, what this process has read of it last."""
_READINGS = count()


class _Opened(local):
    """By path or URL the tables that this thread has opened, each with the mark of its version.

    Of no other thread: it would bring a table up to date between somebody's reading of it and the
    commit that relies on what was read.
    """

    def __init__(self) -> None:
        self.tables: dict[str, tuple[DeltaTable, Mark]] = {}


_OPENED = _Opened()

_MEASURES = {
    "rows": _NUMBER,
    # Of a binary classification; null in a row of a regression.
    "auc": _REAL,
    "log_loss": _REAL,
    "brier": _REAL,
    # Of a regression; null in a row of a binary classification.
    "r2": _REAL,
    "rmse": _REAL,
    "mae": _REAL,
    "bias": _REAL,
    # Of every task.
    "mean_prediction": _REAL,
    "label_mean": _REAL,
    "measured_at": _INSTANT,
}
"""What is measured of predictions whose labels are known, and when."""

_STAGE = {
    "run_id": _TEXT,
    "pipeline": _TEXT,
    "stage": _TEXT,
    "first_day": _DAY,
    "last_day": _DAY,
    "status": _TEXT,
    "started_at": _INSTANT,
    "seconds": _REAL,
}
"""What tables of stages that ran begin with."""

SCHEMAS: dict[str, pa.Schema] = {
    "stage_runs": pa.schema(
        {
            **_STAGE,
            # JSON: every stage has metrics of its own.
            "metrics": _TEXT,
            "error": _TEXT,
            "code_version": _TEXT,
        }
    ),
    "publications": pa.schema(
        {
            "pipeline": _TEXT,
            "table_name": _TEXT,
            # The partition date.
            "day": _DAY,
            # Delta version of the table in which the rows are visible.
            "version": _NUMBER,
            "attempt": _NUMBER,
            "run_id": _TEXT,
            "stage": _TEXT,
            "rows": _NUMBER,
            "checksum": _TEXT,
            "definition": _TEXT,
            "inputs": pa.list_(
                pa.struct(
                    {
                        "name": _TEXT,
                        "first_day": _DAY,
                        "last_day": _DAY,
                        "digest": _TEXT,
                        "version": _NUMBER,
                        "known_from": _DAY,
                        "known_by": _DAY,
                    }
                )
            ),
            "changed": pa.bool_(),
            "code_version": _TEXT,
            "published_at": _INSTANT,
            # The night from which the rows are known; null: always.
            "known_day": _DAY,
        }
    ),
    "check_results": pa.schema(
        {
            "run_id": _TEXT,
            "pipeline": _TEXT,
            "table_name": _TEXT,
            "first_day": _DAY,
            "last_day": _DAY,
            "stage": _TEXT,
            "expectation": _TEXT,
            "column_name": _TEXT,
            "severity": _TEXT,
            "success": pa.bool_(),
            "observed": _TEXT,
            "detail": _TEXT,
            "report": _TEXT,
            "checked_at": _INSTANT,
        }
    ),
    "waivers": pa.schema(
        {
            "waiver_id": _TEXT,
            # 'granted', or 'revoked': the row that ends the one granted under this id.
            "event": _TEXT,
            "pipeline": _TEXT,
            "table_name": _TEXT,
            # Nights, as of a run.
            "first_day": _DAY,
            "last_day": _DAY,
            "expectation": _TEXT,
            "column_name": _TEXT,
            "why": _TEXT,
            # The last day on which it is in force.
            "until": _DAY,
            "created_by": _TEXT,
            "created_at": _INSTANT,
        }
    ),
    "model_events": pa.schema(
        {
            "run_id": _TEXT,
            "pipeline": _TEXT,
            "as_of": _DAY,
            "event": _TEXT,
            "model_version": _TEXT,
            # The champion of then; null when none served.
            "rival_version": _TEXT,
            "metrics": _TEXT,
            "reason": _TEXT,
            "created_at": _INSTANT,
            # Who decided: the gate, or a person.
            "who": _TEXT,
        }
    ),
    "costs": pa.schema(
        {
            **_STAGE,
            "cpu_seconds": _REAL,
            # Null where a cluster computes.
            "spark_cpu_seconds": _REAL,
            "peak_bytes": _NUMBER,
            "rows_read": _NUMBER,
            "bytes_read": _NUMBER,
            "rows_written": _NUMBER,
            "bytes_written": _NUMBER,
            # That the stage has trained or judged; null of other stages.
            "model_version": _TEXT,
            "cost": _REAL,
            "currency": _TEXT,
        }
    ),
    "alerts": pa.schema(
        {
            "run_id": _TEXT,
            "pipeline": _TEXT,
            # Of `pipelines.events.ALARMS`, or 'recovered'.
            "event": _TEXT,
            "stage": _TEXT,
            "days": _TEXT,
            "last_day": _DAY,
            "cause": _TEXT,
            "message": _TEXT,
            "told_at": _INSTANT,
        }
    ),
    "shadow_losses": pa.schema(
        {
            "run_id": _TEXT,
            "pipeline": _TEXT,
            # Digest of what makes a model besides the rows: another recipe begins anew.
            "recipe": _TEXT,
            "champion_version": _TEXT,
            "event_date": _DAY,
            # That measured the day.
            "as_of": _DAY,
            # 'shadow', or 'held_out' where no candidate could have scored the day.
            "how": _TEXT,
            "candidate_version": _TEXT,
            "rows": _NUMBER,
            # Mean loss of a row.
            "candidate_loss": _REAL,
            "champion_loss": _REAL,
            "measured_at": _INSTANT,
        }
    ),
    "backtests": pa.schema(
        {
            "run_id": _TEXT,
            "pipeline": _TEXT,
            # By it the backtests of one pipeline are told apart.
            "settings_digest": _TEXT,
            # JSON: what is learned from what, and how.
            "settings": _TEXT,
            "as_of": _DAY,
            "event_date": _DAY,
            # 'model', or the name of a baseline.
            "model": _TEXT,
            **_MEASURES,
        }
    ),
    "live_quality": pa.schema(
        {
            "run_id": _TEXT,
            "pipeline": _TEXT,
            "landed_date": _DAY,
            "event_date": _DAY,
            "model_version": _TEXT,
            **_MEASURES,
        }
    ),
    "drift": pa.schema(
        {
            "run_id": _TEXT,
            "pipeline": _TEXT,
            "night": _DAY,
            # Of `pipelines.model.WatchKind`.
            "kind": _TEXT,
            "feature": _TEXT,
            "statistic": _TEXT,
            "value": _REAL,
            # The 95 % interval of the value; null of most.
            "low": _REAL,
            "high": _REAL,
            "threshold": _REAL,
            "is_over": pa.bool_(),
            "measured_at": _INSTANT,
        }
    ),
}


def of_stage(run: Run, started_at: datetime, status: str) -> dict[str, object]:
    """What a row of a stage that ran begins with; `seconds` and the rest are its table's."""
    return {
        "run_id": run.run_id,
        "pipeline": run.pipeline.name,
        "stage": run.doing.name,
        "first_day": run.days.first,
        "last_day": run.days.last,
        "status": status,
        "started_at": started_at,
    }


def append(
    environment: Environment,
    name: str,
    rows: Sequence[Mapping[str, Any]],
    *,
    most_seconds: float | None = None,
) -> None:
    """Add rows to an ops table; a column that a row leaves out is null.

    Args:
        environment: Whose lake it is in.
        name: Of the table.
        rows: What to add.
        most_seconds: For so long it waits for another writer of the home; None: until it is done.

    Raises:
        AwaitsTurn: another one was at it for longer.
    """
    _write(environment, name, rows, most_seconds=most_seconds, mode="append")


def replace(
    environment: Environment, name: str, rows: Sequence[Mapping[str, Any]], predicate: str
) -> None:
    """Put rows in the place of those for which the SQL predicate holds, in one commit."""
    if exists(environment, name):
        _write(environment, name, rows, mode="overwrite", predicate=predicate)
    else:
        append(environment, name, rows)


def read(
    environment: Environment,
    name: str,
    conditions: Sequence[Condition] = (),
    columns: Sequence[str] | None = None,
) -> pa.Table:
    """The rows of an ops table; none when nothing has been written yet.

    A column that the table has not got yet, because it was last written before there was one, is
    null.

    Args:
        conditions: Such as `("pipeline", "=", "flights")`, all of which must hold; none: all rows.
        columns: Those to read; None: all.
    """
    schema = _schema(name)
    if columns is not None:
        schema = pa.schema([schema.field(column) for column in columns])
    table = _opened(_path(environment, name))
    if table is None:
        return schema.empty_table()
    return _rows(table, name, schema, conditions)


def read_once(environment: Environment, name: str) -> pa.Table:
    """All rows of an ops table; of one that this process has read already only what is new.

    For a table of few rows that is asked many times.
    """
    return kept(environment, name).rows


def kept(environment: Environment, name: str) -> Kept:
    """As `read_once`, with what tells whether rows were added to those of before."""
    path = _path(environment, name)
    known = _KEPT.get(path)
    found = known and _followed(path, known, _schema(name))
    if found is None:
        found = _read_whole(path, name)
    if found.mark is not None:
        _KEPT[path] = found
    return found


def _read_whole(path: str, name: str) -> Kept:
    table = _opened(path)
    reading = next(_READINGS)
    if table is None:
        rows = _schema(name).empty_table()
        return Kept(version=-1, mark=None, rows=rows, reading=reading)
    rows = _rows(table, name, _schema(name))
    # After the reading: what was written while it lasted is found to be newer.
    (mark,) = marks(path, table.version())
    return Kept(version=table.version(), mark=mark, rows=rows, reading=reading)


def _followed(path: str, known: Kept, schema: pa.Schema) -> Kept | None:
    """What is known with the rows that were added since; None: more than that has happened."""
    own, following = marks(path, known.version, known.version + 1)
    if own != known.mark:
        return None
    if following is None:
        return known
    newest = newest_from(path, known.version + 1)
    if newest is None:
        return None
    try:
        names = _files_added(path, range(known.version + 1, newest + 1))
        added = None if names is None else [_rows_of_file(path, one, schema) for one in names]
    except FileNotFoundError:
        # Put together with others since, or the log was tidied.
        return None
    (mark,) = marks(path, newest)
    if added is None or mark is None:
        return None
    rows = pa.concat_tables([known.rows, *added])
    return with_changes(known, version=newest, mark=mark, rows=rows)


def _files_added(path: str, versions: range) -> list[str] | None:
    """The files that these commits have added; None: one of them has done something else."""
    names = []
    for version in versions:
        for action in actions(path, version):
            if "add" in action:
                names.append(unquote(action["add"]["path"]))
            elif "commitInfo" not in action:
                return None
    return names


def _rows_of_file(path: str, name: str, schema: pa.Schema) -> pa.Table:
    """The rows of a data file of the table; a column that it has not got is null."""
    # Here, because a command that looks once needs none of it.
    from pyarrow import parquet

    system, root = file_system(path)
    with system.open_input_file(f"{root}/{name}") as file:
        found = parquet.ParquetFile(file).read()
    empty = pa.nulls(found.num_rows)
    there = {one: found[one] for one in found.column_names}
    columns = [there.get(field.name, empty).cast(field.type) for field in schema]
    return pa.table(columns, schema=schema)


def exists(environment: Environment, name: str) -> bool:
    """Whether anything has been written to the ops table."""
    return is_table(_path(environment, name))


def now() -> datetime:
    """This instant, for the `…_at` columns."""
    return datetime.now(UTC)


def now_in_order(environment: Environment) -> datetime:
    """This instant, and later than all that was told of models, or to people.

    Some of it may have been recorded by a clock that is ahead of this one: of another machine, or
    of this one before it was set back. What follows it is not to come before it, and what people
    were told is compared with what there was to tell.
    """
    at = now()
    for name, column in _IN_ORDER.items():
        last: datetime | None = pc.max(read_once(environment, name)[column]).as_py()
        if last is not None:
            at = max(at, last + TICK)
    return at


def _opened(path: str) -> DeltaTable | None:
    """The table at its newest version; None: nothing was written to it so far.

    A thread opens it once, and then reads what is new in its log: to open it takes the longer the
    longer that is, and a night appends some forty times.
    """
    kept = _OPENED.tables.get(path)
    if kept is not None:
        table, mark = kept
        version = table.version()
        own, following = marks(path, version, version + 1)
        if own == mark:
            if following is not None:
                table.update_incremental()
                _keep(path, table)
            return table
    if not is_table(path):
        return None
    table = DeltaTable(path)
    _keep(path, table)
    return table


def _keep(path: str, table: DeltaTable) -> None:
    (mark,) = marks(path, table.version())
    _OPENED.tables.pop(path, None)
    if mark is not None:
        _OPENED.tables[path] = table, mark


def _rows(
    table: DeltaTable, name: str, schema: pa.Schema, conditions: Sequence[Condition] = ()
) -> pa.Table:
    there = {field.name for field in table.schema().fields}
    expressions = {one: f'"{one}"' if one in there else "NULL" for one in SCHEMAS[name].names}
    wanted = ", ".join(f'{expressions[one]} AS "{one}"' for one in schema.names)
    query = f"SELECT {wanted} FROM rows"
    if conditions:
        query += " WHERE " + " AND ".join(
            f"{expressions[column]} {operator} {_literal(value)}"
            for column, operator, value in conditions
        )
    # DataFusion's texts are views, the schema's are not.
    return _query(table, query).cast(schema)


def _write(
    environment: Environment,
    name: str,
    rows: Sequence[Mapping[str, Any]],
    most_seconds: float | None = None,
    **how: Any,
) -> None:
    schema = _schema(name)
    unknown = set[str]().union(*rows) - set(schema.names)
    assert not unknown, f"ops.{name} has no columns {sorted(unknown)}"
    # A column that a row leaves out is null: from_pylist fills it.
    table = pa.Table.from_pylist(list(rows), schema=schema)
    path = _path(environment, name)
    with _lock(environment, name, most_seconds):
        written = _commit(path, table, **how)
        _tidy(written)
        _keep(path, written)


def _commit(path: str, rows: pa.Table, **how: Any) -> DeltaTable:
    """Write the rows, again when writers of other homes were faster too often."""
    for _ in range(_ATTEMPTS - 1):
        try:
            return _commit_once(path, rows, **how)
        except CommitFailedError:
            continue
    return _commit_once(path, rows, **how)


def _commit_once(path: str, rows: pa.Table, **how: Any) -> DeltaTable:
    # Merge: a table that was made before a column existed gets it.
    how = {**how, "schema_mode": "merge"}
    table = _opened(path)
    if table is None:
        write_deltalake(path, rows, configuration=_PROPERTIES, **how)
        return DeltaTable(path)
    write_deltalake(table, rows, configuration=_PROPERTIES, **how)
    return table


def _tidy(table: DeltaTable) -> None:
    """Put the rows of many files into one, so that a read is as fast after many nights.

    Files and log entries that nobody reads any more are deleted.
    """
    if len(table.file_uris()) <= _MOST_FILES:
        return
    rows = _query(table, "SELECT * FROM rows")
    # DataFusion's texts are views, which other readers cannot compare with a text.
    rows = rows.cast(pa.schema(table.schema().to_arrow()))
    try:
        # Not by delta-rs's `optimize.compact`: two of these at once, of two homes, both succeed,
        # and each row is there twice (seen in 1.6.6). An overwrite refuses to be the second.
        write_deltalake(table, rows, mode="overwrite")
    except CommitFailedError:
        # Another writer's turn; one of the next tidies.
        return
    # In full, because otherwise a file is forgotten that the log no longer tells of.
    DeltaTable(table.table_uri).vacuum(dry_run=False, full=True)


def _query(table: DeltaTable, query: str) -> pa.Table:
    """What DataFusion answers; it calls the table `rows`."""
    answer = QueryBuilder().register("rows", table).execute(query)
    # pa.table(answer) would look whether it is a DataFrame, and import pandas for that.
    return pa.RecordBatchReader.from_stream(answer).read_all()


def _literal(value: object) -> str:
    """The value as DataFusion's SQL writes it."""
    if isinstance(value, str):
        quoted = value.replace("'", "''")
        return f"'{quoted}'"
    # First: an instant is a date too.
    if isinstance(value, datetime):
        instant = value.astimezone(UTC).isoformat()
        return f"""arrow_cast('{instant}', 'Timestamp(Microsecond, Some("UTC"))')"""
    assert isinstance(value, date), f"ops tables are not read by {value!r}"
    return f"DATE '{value}'"


def _schema(name: str) -> pa.Schema:
    if name not in SCHEMAS:
        raise no_such("ops table", name, SCHEMAS)
    return SCHEMAS[name]


def _path(environment: Environment, name: str) -> str:
    return environment.table_path(f"ops.{name}")


def _lock(
    environment: Environment,
    name: str,
    most_seconds: float | None = None,
) -> AbstractContextManager[None]:
    """One writer of an ops table at a time in a home: they need not retry against each other."""
    return locks.hold(environment, f"ops.{name}", most_seconds=most_seconds)
