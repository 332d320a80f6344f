"""The platform's own small tables under `<lake>/ops/`, written by delta-rs and never by Spark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

from jobs.lake.arrow_files import arrow_files
from jobs.services import locks
from pipelines.environment import Environment
from pipelines.errors import no_such

_INSTANT = pa.timestamp("us", tz="UTC")
"""Microseconds are what Delta keeps."""
_TEXT = pa.string()
_DAY = pa.date32()
_NUMBER = pa.int64()
_REAL = pa.float64()

SCHEMAS: dict[str, pa.Schema] = {
    "stage_runs": pa.schema(
        {
            "run_id": _TEXT,
            "pipeline": _TEXT,
            "stage": _TEXT,
            "first_day": _DAY,
            "last_day": _DAY,
            "status": _TEXT,
            "started_at": _INSTANT,
            "seconds": _REAL,
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
                    }
                )
            ),
            "changed": pa.bool_(),
            "code_version": _TEXT,
            "published_at": _INSTANT,
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
        }
    ),
    "live_quality": pa.schema(
        {
            "run_id": _TEXT,
            "pipeline": _TEXT,
            "landed_date": _DAY,
            "event_date": _DAY,
            "model_version": _TEXT,
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
    ),
}


def append(
    environment: Environment,
    name: str,
    rows: Sequence[Mapping[str, Any]],
) -> None:
    """Add rows to an ops table; a column that a row leaves out is null."""
    _write(environment, name, rows, mode="append")


def replace(
    environment: Environment, name: str, rows: Sequence[Mapping[str, Any]], predicate: str
) -> None:
    """Put rows in the place of those for which the SQL predicate holds, in one commit."""
    if exists(environment, name):
        _write(environment, name, rows, mode="overwrite", predicate=predicate)
    else:
        append(environment, name, rows)


def read(
    environment: Environment, name: str, filters: list[tuple[str, str, Any]] | None = None
) -> pa.Table:
    """The rows of an ops table; none when nothing has been written yet.

    A column that the table has not got yet, because it was last written before there was one, is
    null.

    Args:
        filters: Conditions such as `("pipeline", "=", "flights")`, all of which must hold.
    """
    schema = _schema(name)
    if not exists(environment, name):
        return schema.empty_table()
    path = _path(environment, name)
    table = DeltaTable(path)
    rows = table.to_pyarrow_table(filters=filters, filesystem=arrow_files(path))
    for field in schema:
        if field.name not in rows.column_names:
            rows = rows.append_column(field, pa.nulls(len(rows), field.type))
    return rows.select(schema.names)


def exists(environment: Environment, name: str) -> bool:
    """Whether anything has been written to the ops table."""
    return DeltaTable.is_deltatable(_path(environment, name))


def now() -> datetime:
    """This instant, for the `…_at` columns."""
    return datetime.now(UTC)


def _write(
    environment: Environment, name: str, rows: Sequence[Mapping[str, Any]], **how: Any
) -> None:
    schema = _schema(name)
    unknown = set[str]().union(*rows) - set(schema.names)
    assert not unknown, f"ops.{name} has no columns {sorted(unknown)}"
    # A column that a row leaves out is null: from_pylist fills it.
    table = pa.Table.from_pylist(list(rows), schema=schema)
    with _lock(environment, name):
        # Merge: a table that was made before a column existed gets it.
        write_deltalake(_path(environment, name), table, schema_mode="merge", **how)


def _schema(name: str) -> pa.Schema:
    if name not in SCHEMAS:
        raise no_such("ops table", name, SCHEMAS)
    return SCHEMAS[name]


def _path(environment: Environment, name: str) -> str:
    return environment.table_path(f"ops.{name}")


def _lock(environment: Environment, name: str) -> AbstractContextManager[None]:
    """One writer of an ops table at a time, so that appends never retry against each other."""
    return locks.hold(environment, f"ops.{name}")
