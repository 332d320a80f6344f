"""SQL over every table of the lake without a JVM.

DuckDB reads the Delta tables, each at its newest version.
"""

from __future__ import annotations

import duckdb
from deltalake import DeltaTable
from pyarrow import fs

from jobs.lake.arrow_files import arrow_files
from pipelines.environment import Environment
from pipelines.errors import UsageError


def query(environment: Environment, statement: str) -> tuple[list[str], list[tuple[object, ...]]]:
    """Column names and rows of a SQL statement; tables are named `<pipeline>.<table>`.

    Raises:
        UsageError: DuckDB refuses the statement; the message is DuckDB's own.
    """
    with connect(environment) as database:
        try:
            found = database.sql(statement)
            return (list(found.columns), found.fetchall()) if found is not None else ([], [])
        except duckdb.Error as error:
            raise UsageError(
                f"{error}\nTables of the lake: "
                f"{', '.join(tables(environment)) or 'none yet, run a night first'}."
            ) from None


def connect(environment: Environment) -> duckdb.DuckDBPyConnection:
    """A DuckDB session in memory with one view for each table of the lake.

    It can read nothing else and write nowhere.
    """
    database = duckdb.connect(":memory:")
    database.execute("SET TimeZone = 'UTC'")
    for name in tables(environment):
        pipeline, _, table = name.partition(".")
        database.register(f"{pipeline}__{table}", _dataset(environment, name))
        database.execute(f'CREATE SCHEMA IF NOT EXISTS "{pipeline}"')
        database.execute(
            f'CREATE VIEW "{pipeline}"."{table}" AS SELECT * FROM "{pipeline}__{table}"'
        )
    database.execute("SET enable_external_access = false")
    return database


def tables(environment: Environment) -> list[str]:
    """SQL names of the tables in the lake, sorted."""
    system, root = fs.FileSystem.from_uri(environment.lake)
    return sorted(
        f"{pipeline.base_name}.{table.base_name}"
        for pipeline in _folders(system, root)
        for table in _folders(system, pipeline.path)
        if DeltaTable.is_deltatable(f"{environment.lake}/{pipeline.base_name}/{table.base_name}")
    )


def _dataset(environment: Environment, name: str) -> object:
    delta = DeltaTable(environment.table_path(name))
    mapping = delta.metadata().configuration.get("delta.columnMapping.mode", "none")
    if mapping != "none":
        raise UsageError(
            f"{name} uses Delta column mapping ('{mapping}'), "
            "which this reader would read wrongly. Query it through Spark."
        )
    return delta.to_pyarrow_dataset(filesystem=arrow_files(environment.table_path(name)))


def _folders(system: fs.FileSystem, place: str) -> list[fs.FileInfo]:
    found = system.get_file_info(fs.FileSelector(place, allow_not_found=True))
    return [
        info
        for info in found
        if info.type == fs.FileType.Directory and not info.base_name.startswith("_")
    ]
