"""Rows of Delta tables as frames of Spark."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from pyspark.sql.types import StructType

from jobs.lake.data_files import gone
from jobs.spark.session import connect
from pipelines.errors import NightshiftError
from pipelines.places import literal
from pipelines.quoting import quoted

if TYPE_CHECKING:
    from deltalake import DeltaTable
    from pyspark.sql import DataFrame

    from jobs.lake.data_files import DayFile
    from pipelines.environment import Environment

_DAYS_SHOWN = 5
_FEW_FILES = 1_000
"""Spark looks at as many (0.4 ms each) as fast as Delta finds out which files there are (0.4 s)."""


def of_files(
    environment: Environment, schema: StructType, base: str, files: Sequence[str]
) -> DataFrame:
    """The rows of exactly these Parquet files.

    Args:
        environment: Tells whose Spark reads them.
        schema: Of the rows, with the columns that folders below the base tell; a column that a file
            lacks is null.
        base: Path of a folder.
        files: Paths below it; each folder between is either named `<column>=<value>`, or says
            nothing.
    """
    spark = connect(environment)
    if not files:
        return spark.createDataFrame([], schema)
    reader = spark.read.schema(schema).option("basePath", base)
    # Each staging has lain in a folder of its own, which is no column.
    reader = reader.option("ignoreInvalidPartitionPaths", value=True)
    return with_columns(reader.parquet(*map(literal, files)), schema.names)


def with_columns(rows: DataFrame, names: Iterable[str]) -> DataFrame:
    """These columns in this order, whatever signs their names have."""
    # A dot would ask for a part of a column.
    return rows.select(*map(quoted, names))


def of_table(
    environment: Environment,
    place: str,
    table: DeltaTable,
    files: Sequence[DayFile],
    version: int | None = None,
) -> DataFrame:
    """The rows of a Delta table, at least those of some files.

    Spark finds out by two to four jobs which files a table has at a version that is new to it. This
    process knows them.

    Args:
        environment: Tells whose Spark reads them.
        place: The table's path or URL.
        table: At the version that is read.
        files: Those that are wanted of it, all of some days.
        version: That of the table; None: the newest, which Delta keeps once it has read its log.

    Raises:
        NightshiftError: a file is gone.
    """
    if _say_all(environment, table, files):
        _require_there(place, files)
        schema = StructType.fromJson(json.loads(table.schema().to_json()))
        paths = [f"{place}/{file.path}" for file in files]
        return of_files(environment, schema, place, paths)
    reader = connect(environment).read.format("delta")
    if version is not None:
        reader = reader.option("versionAsOf", version)
    return reader.load(place)


def _say_all(environment: Environment, table: DeltaTable, files: Sequence[DayFile]) -> bool:
    """Whether the files by themselves say what the table says, and are fast to look at."""
    # In a store each look is a request, and a cluster of others has them done by jobs.
    is_slow = environment.uses_object_store or environment.spark_remote
    if is_slow or len(files) > _FEW_FILES:
        return False
    # A later version has rows that are deleted, or columns by other names, in files as they are.
    if table.protocol().min_reader_version > 1:
        return False
    (column,) = table.metadata().partition_columns
    return all(_lies_as_ours(file, column) for file in files)


def _require_there(place: str, files: Sequence[DayFile]) -> None:
    """Refuse to read a table of which a file was deleted: Spark would not tell whose it was."""
    lost = gone(place, [file.path for file in files])
    if not lost:
        return
    days = sorted({file.day for file in files if file.path in lost})
    raise NightshiftError(
        f"{place} has lost {len(lost)} of its data files, such as {lost[0]}, with rows of "
        f"{', '.join(map(str, days[:_DAYS_SHOWN]))}: its log names them, and another program has "
        "deleted them. Put them back from a copy of the lake, or have these days made anew by "
        "--restate, where their files are still landed."
    )


def _lies_as_ours(file: DayFile, column: str) -> bool:
    """Whether Spark finds it, and its day: Delta itself lets a file lie anywhere."""
    folder, _, name = file.path.rpartition("/")
    # Spark takes such files for hidden.
    is_hidden = name.startswith(("_", "."))
    is_of_its_day = f"/{folder}".endswith(f"/{column}={file.day}")
    return is_of_its_day and not (is_hidden or file.is_elsewhere)
