"""The commands `nightshift tables` and `nightshift describe`: what the lake holds and means."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from jobs.lake import dictionary, sql
from jobs.lake.ops_views import OPS_VIEWS
from jobs.lake.store_faults import in_place_of_doc
from jobs.lake.tokens import as_table
from jobs.output import show
from pipelines.spec import HISTORY_SUFFIX

if TYPE_CHECKING:
    from pipelines.environment import Environment

TABLES = ("table", "rows", "first day", "last day", "files", "MB", "what it holds")
COLUMNS = ("column", "type", "meaning")
_MEGABYTE = 1e6


def tables(environment: Environment, pipeline: str | None) -> list[tuple[object, ...]]:
    """A row for each table of the lake, of one pipeline or of all; by `TABLES`."""
    names = [name for name in sql.tables(environment) if not name.endswith(HISTORY_SUFFIX)]
    wanted = [name for name in names if pipeline in (None, name.partition(".")[0])]
    return [_of_view(name) if name in OPS_VIEWS else _row(environment, name) for name in wanted]


def describe(environment: Environment, table: str) -> list[tuple[object, ...]]:
    """A row for each column of a table, by `COLUMNS`.

    Raises:
        UnknownTable: there is no such table.
    """
    name = sql.known_as(sql.tables(environment), table)
    docs = dictionary.column_docs(name)
    _, shown = sql.query(environment, f"DESCRIBE SELECT * FROM {as_table(name)}")
    rows: list[tuple[object, ...]] = []
    for column, kind, *_ in shown:
        meaning = docs.get(str(column), "")
        rows.append((column, str(kind).lower(), meaning))
    return rows


def print_description(environment: Environment, table: str, form: str) -> None:
    """Print what a table holds, and a row for each of its columns."""
    name = sql.known_as(sql.tables(environment), table)
    rows = describe(environment, name)
    if form == "table":
        doc = dictionary.table_doc(name)
        print(f"{name}: {doc}" if doc else name)
    show(COLUMNS, rows, form)


def _of_view(name: str) -> tuple[object, ...]:
    return _without_figures(name, f"View: {dictionary.table_doc(name)}")


def _without_figures(name: str, doc: str) -> tuple[object, ...]:
    return (name, *[None] * (len(TABLES) - 2), doc)


def _row(environment: Environment, name: str) -> tuple[object, ...]:
    try:
        table = DeltaTable(environment.table_path(name))
    except DeltaError as error:
        # It may be the one that a person looks for: the others are listed all the same.
        return _without_figures(name, in_place_of_doc(name, error))
    files = pa.table(table.get_add_actions(flatten=True))
    first, last = _days(table, files)
    return (
        name,
        pc.sum(files["num_records"]).as_py() or 0,
        first,
        last,
        files.num_rows,
        round((pc.sum(files["size_bytes"]).as_py() or 0) / _MEGABYTE, 1),
        dictionary.table_doc(name),
    )


def _days(table: DeltaTable, files: pa.Table) -> tuple[date | None, date | None]:
    """Between which days its partitions lie; None for a table without days."""
    columns = table.metadata().partition_columns
    if len(columns) != 1:
        return None, None
    bounds = pc.min_max(files[f"partition.{columns[0]}"]).as_py()
    return bounds["min"], bounds["max"]
