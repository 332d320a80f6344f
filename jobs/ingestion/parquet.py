"""Parquet: flat columns; a record is a row.

Values go through text, as those of the other formats come, so that they meet the same rules.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs.ingestion.contents import Contents, Drop, Unfit
from jobs.ingestion.provenance import landed_date, source_file, spark_paths
from jobs.ingestion.text import AS_JSON, INSTANT, has_control_characters
from pipelines.feeds import PROVENANCE
from pipelines.places import opened

if TYPE_CHECKING:
    from pyspark.sql import Column as Expression

    from pipelines.feeds import Feed

_SPARK_TYPES = {
    pa.bool_(): "boolean",
    pa.int8(): "tinyint",
    pa.int16(): "smallint",
    pa.int32(): "int",
    pa.int64(): "bigint",
    # Spark has no unsigned numbers: each gets the next larger type, the largest a decimal.
    pa.uint8(): "smallint",
    pa.uint16(): "int",
    pa.uint32(): "bigint",
    pa.uint64(): "decimal(20,0)",
    pa.float32(): "float",
    pa.float64(): "double",
    pa.string(): "string",
    pa.large_string(): "string",
    pa.string_view(): "string",
    pa.date32(): "date",
    # A column without any value, stored as integers.
    pa.null(): "int",
}
_MOST_DIGITS = 38
"""Precision of Spark's decimals."""
# Spark's names for what some clock shows, and for an instant.
_WITHOUT_ZONE, _WITH_ZONE = "timestamp_ntz", "timestamp"
_OPTIONS = {"datetimeRebaseMode": "CORRECTED", "int96RebaseMode": "CORRECTED"}
"""Days before 1582 as they are written: by default Spark fails on a file that has one."""
_READABLE_CODECS = frozenset({"UNCOMPRESSED", "SNAPPY", "GZIP", "ZSTD", "LZ4"})
"""With which Spark decompresses; Arrow knows more."""
_UNREADABLE_ENCODINGS = frozenset({"BYTE_STREAM_SPLIT"})
"""Which Arrow writes and Spark cannot read."""
_WRITTEN_BY_SPARK = b"org.apache.spark.version"
"""Key in the metadata of files that Spark wrote."""
Layout = tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Parquet:
    """Parquet files. A layout is their columns with Spark's types."""

    def contents(self, path: Path, feed: Feed) -> Contents:
        """The footer's columns and rows.

        The pages of the columns that Spark reads are read once too: a damaged one would fail the
        whole stage there, this way it refuses its file.
        """
        try:
            with opened(path) as file, pq.ParquetFile(file) as parquet:
                layout = _layout(parquet, feed)
                names = tuple(parquet.schema_arrow.names)
                read = [name for name, _ in layout]
                _refuse_unreadable_pages(parquet.metadata, read)
                _read_through(parquet, read)
                rows = parquet.metadata.num_rows
        except pa.ArrowException as error:
            raise Unfit(f"the Parquet file is damaged: {_first_line(error)}") from None
        except OSError as error:
            # One with a number comes from the system, one of a kind of its own from a store.
            if error.errno is not None or type(error) is not OSError:
                raise
            raise Unfit(f"the Parquet file is damaged: {_first_line(error)}") from None
        return Contents(columns=names, layout=layout, records=rows)

    def records(self, spark: SparkSession, feed: Feed, drops: Sequence[Drop]) -> DataFrame:
        """Every row; `source_line` is its 1-based number in the file."""
        layout = drops[0].layout
        assert isinstance(layout, tuple), "a Parquet file's layout is its columns"
        schema = ", ".join(f"`{name}` {kind}" for name, kind in layout)
        rows = spark.read.schema(schema).options(**_OPTIONS).parquet(*spark_paths(drops))
        # The file's name last: it is made of landed_date.
        placed = rows.withColumns(
            {
                "landed_date": landed_date(feed, drops),
                "source_line": (F.col("_metadata.row_index") + 1).cast("int"),
                "record": F.to_json(F.struct(*(name for name, _ in layout)), AS_JSON),
            }
        ).withColumn("source_file", source_file(feed, drops))
        kinds = dict(layout)
        texts = [_text(name, kinds[name]).alias(name) for name in feed.column_names]
        broken = _problem(kinds).alias("_broken")
        return placed.select(*texts, broken, "record", *PROVENANCE)


def _layout(parquet: pq.ParquetFile, feed: Feed) -> Layout:
    """The columns that are read, and their types in Spark.

    Raises:
        Unfit: of some columns Spark cannot read the type, or it is nested; all are named.
    """
    fields = list(parquet.schema_arrow)
    if feed.new_columns == "ignore":
        fields = [field for field in fields if field.name in feed.column_names]
    kinds = [(field.name, _spark_type(parquet, field)) for field in fields]
    types = {field.name: field.type for field in fields}
    unreadable = [f"'{name}' ({types[name]})" for name, kind in kinds if kind is None]
    if unreadable:
        raise Unfit(
            f"column {', '.join(unreadable)} has a type that cannot be ingested: have it written "
            "as a number, a UTF-8 string, a boolean, a date, or a timestamp in microseconds with "
            "its zone"
        )
    return tuple((name, kind) for name, kind in kinds if kind is not None)


def _spark_type(parquet: pq.ParquetFile, field: pa.Field) -> str | None:
    """The type as which Spark reads a column; None where it cannot."""
    kind = field.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_decimal(kind):
        is_readable = kind.precision <= _MOST_DIGITS
        return f"decimal({kind.precision},{kind.scale})" if is_readable else None
    if pa.types.is_timestamp(kind):
        return _timestamp_type(parquet, field)
    return _SPARK_TYPES.get(kind)


def _timestamp_type(parquet: pq.ParquetFile, field: pa.Field) -> str | None:
    if field.type.unit != "ns":
        return _WITHOUT_ZONE if field.type.tz is None else _WITH_ZONE
    # Arrow shows Parquet's oldest kind of timestamp, INT96, as nanoseconds without a zone. Spark
    # writes its instants so; of other writers it could be any clock's time.
    physical = {column.path: column.physical_type for column in parquet.schema}
    by_spark = _WRITTEN_BY_SPARK in (parquet.metadata.metadata or {})
    return _WITH_ZONE if by_spark and physical.get(field.name) == "INT96" else None


def _refuse_unreadable_pages(metadata: pq.FileMetaData, names: Collection[str]) -> None:
    """Refuse what Arrow can write and Spark cannot read.

    Raises:
        Unfit: one of these columns is compressed or encoded in such a way.
    """
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for column in map(group.column, range(group.num_columns)):
            if column.path_in_schema not in names:
                continue
            odd = [name for name in column.encodings if name in _UNREADABLE_ENCODINGS]
            if column.compression not in _READABLE_CODECS:
                odd.append(column.compression)
            if odd:
                raise Unfit(
                    f"column '{column.path_in_schema}' is stored as {', '.join(odd)}, "
                    "which Spark cannot read: have it written with the codec SNAPPY or ZSTD and "
                    "a plain or dictionary encoding"
                )


def _read_through(parquet: pq.ParquetFile, names: Sequence[str]) -> None:
    """Read every page of these columns.

    Raises:
        pa.ArrowException, OSError: the file is damaged, or a time does not fit into microseconds.
    """
    for batch in parquet.iter_batches(columns=names):
        # By their place: a name that comes twice finds nothing.
        for column in batch.columns:
            kind = column.type
            if pa.types.is_timestamp(kind) and kind.unit in ("s", "ms"):
                column.cast(pa.timestamp("us", kind.tz))


def _text(name: str, kind: str) -> Expression:
    """The text of a value, as a CSV file would have it."""
    column = F.col(f"`{name}`")
    if kind == _WITH_ZONE:
        # With its offset, so that the session's own time zone plays no part.
        return F.date_format(column, INSTANT)
    return F.try_validate_utf8(column) if kind == "string" else column.cast("string")


def _problem(kinds: dict[str, str]) -> Expression:
    """Which text of a row is none; null when all are."""
    problems = [_text_problem(name) for name, kind in kinds.items() if kind == "string"]
    return F.coalesce(*problems, F.lit(None).cast("string"))


def _text_problem(name: str) -> Expression:
    column = F.col(f"`{name}`")
    return F.when(~F.is_valid_utf8(column), f"{name}: not UTF-8 text").when(
        has_control_characters(column), f"{name}: control characters"
    )


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
