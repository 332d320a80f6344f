"""From lines of text to typed rows, each with the reason why it must be quarantined or none.

DataFrame in, DataFrame out.

A record is one line. Lines are numbered by a window over each file, so that a file of any length is
read in splits; only the numbering and parsing of a single file stay in one task, which is
comfortable up to some gigabytes a file.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import reduce
from itertools import groupby
from typing import TYPE_CHECKING
from urllib.parse import quote

from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

if TYPE_CHECKING:
    from pyspark.sql import Column as Expression

    from jobs.ingestion.drops import Drop
    from pipelines.feeds import Column, Feed

PROVENANCE = ("landed_date", "source_file", "source_line")
QUARANTINE = (*PROVENANCE, "reason", "record")
_SHOWN = 80
_SQL_TYPES = {"long": "bigint"}
_FORMS = {
    "int": r"[+-]?\d+",
    "long": r"[+-]?\d+",
    "double": r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?",
    "boolean": r"(?i)true|false",
    "date": r"[1-9]\d{3}-\d{2}-\d{2}",
    "timestamp": r"[1-9]\d{3}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?(Z|[+-]\d{2}:?\d{2})",
}
"""What a value must look like. Spark's casts alone are generous: '2013' is a date, 'NaN' a double,
a time needs no zone."""
_ARTICLES = {"int": "an int", "timestamp": "a timestamp with its zone"}
_ODD = "_odd_record"
"""Name by which the CSV parser returns a record with the wrong number of fields."""
_FIRST, _TEXT = "_first_line", "_text_of_"
_PARSER = {"quote": '"', "escape": '"', "mode": "PERMISSIVE", "columnNameOfCorruptRecord": _ODD}


def columns(feed: Feed) -> tuple[str, ...]:
    """Columns of the raw table of a feed."""
    return (*(column.name for column in feed.columns), *PROVENANCE)


def records(spark: SparkSession, feed: Feed, drops: Sequence[Drop]) -> DataFrame:
    """Every data line of the files.

    The columns of the raw table, `record` (the line) and `reason` (null for a good row).
    """
    if not drops:
        return spark.createDataFrame([], _schema(feed))
    by_header = groupby(sorted(drops, key=lambda drop: drop.header), key=lambda drop: drop.header)
    parts = [_typed(_numbered(spark, feed, list(same)), feed, header) for header, same in by_header]
    return _without_duplicates(reduce(DataFrame.unionByName, parts), feed)


def _schema(feed: Feed) -> str:
    declared = [f"`{column.name}` {_sql_type(column)}" for column in feed.columns]
    return ", ".join(
        [
            *declared,
            "landed_date date, source_file string, source_line int, record string, reason string",
        ]
    )


def _sql_type(column: Column) -> str:
    return _SQL_TYPES.get(column.type, column.type)


def _numbered(spark: SparkSession, feed: Feed, drops: list[Drop]) -> DataFrame:
    """The files' lines with `source_file`, `landed_date` and the 1-based `source_line`.

    No headers, no blank lines at the end.
    """
    text = spark.read.option("lineSep", "\n").text([_unglobbed(str(drop.path)) for drop in drops])
    lines = text.select(
        F.rtrim("value", F.lit("\r")).alias("record"),
        _landed_date(feed, drops[0]).alias("landed_date"),
        F.col("_metadata.file_block_start").alias("block"),
        F.monotonically_increasing_id().alias("position"),
    )
    in_file = Window.partitionBy("landed_date")
    numbered = lines.withColumn(
        "source_line", F.row_number().over(in_file.orderBy("block", "position"))
    )
    last = F.max(F.when(F.col("record") != "", F.col("source_line"))).over(in_file)
    data = numbered.withColumn("last", last).where(F.col("source_line").between(2, F.col("last")))
    before, _, after = drops[0].source_file.partition(str(drops[0].day))
    source_file = (
        F.lit(before)
        if feed.is_reference
        else F.concat(F.lit(before), F.col("landed_date").cast("string"), F.lit(after))
    )
    return data.select("record", "landed_date", source_file.alias("source_file"), "source_line")


def _landed_date(feed: Feed, drop: Drop) -> Expression:
    if feed.is_reference:
        return F.lit(drop.day)
    before, _, after = quote(feed.path, safe="/{}").partition("{date}")
    return F.regexp_extract(
        "_metadata.file_path",
        rf"/{re.escape(before)}(\d{{4}}-\d{{2}}-\d{{2}}){re.escape(after)}$",
        1,
    ).cast("date")


def _unglobbed(path: str) -> str:
    # Spark takes a path with one of these for a pattern.
    return re.sub(r"([\[\]{}*?\\])", r"\\\1", path)


def _typed(lines: DataFrame, feed: Feed, header: tuple[str, ...]) -> DataFrame:
    # One projection after the other: each is used several times by the next, and Spark would not
    # share them inside one.
    schema = ", ".join([*(f"`{name}` string" for name in header), f"{_ODD} string"])
    checked = lines.withColumn("broken", _broken())
    parsed = checked.withColumn(
        "fields", F.when(F.col("broken").isNull(), F.from_csv("record", schema, _PARSER))
    )
    wrong = F.coalesce("broken", _wrong_count(len(header))).alias("broken")
    fields = [_text(column, feed.null_token).alias(_TEXT + column.name) for column in feed.columns]
    texts = parsed.select(*fields, wrong, "record", *PROVENANCE)
    typed = texts.select(*(_cast(column).alias(column.name) for column in feed.columns), "*")
    complaints = F.concat_ws(
        "; ", *(_complaint(column, column.name in feed.required) for column in feed.columns)
    )
    reason = F.coalesce("broken", F.nullif(complaints, F.lit("")))
    return typed.select(
        *columns(feed), F.make_valid_utf8("record").alias("record"), reason.alias("reason")
    )


def _broken() -> Expression:
    """Why a line is no CSV record; null when it may be one."""
    record = F.col("record")
    quotes = F.length(record) - F.length(F.replace(record, F.lit('"'), F.lit("")))
    return (
        F.when(~F.is_valid_utf8(record), "record: not UTF-8 text")
        .when(record == "", "record: blank line between records")
        .when(record.rlike(r"[\x00-\x08\x0a-\x1f\x7f]"), "record: control characters")
        .when(
            quotes % 2 == 1,
            "record: a quote is opened and not closed on the line; a record must be one line",
        )
        .when(_commas(record) > 10_000, F.format_string("record: %d fields", _commas(record) + 1))
    )


def _commas(record: Expression) -> Expression:
    return F.length(record) - F.length(F.replace(record, F.lit(","), F.lit("")))


def _wrong_count(expected: int) -> Expression:
    found = _commas(F.regexp_replace("record", '"[^"]*"', "")) + 1
    return F.when(
        F.col("fields")[_ODD].isNotNull(),
        F.format_string(f"record: %d fields instead of {expected}", found),
    )


def _text(column: Column, null_token: str) -> Expression:
    """The text of a field; null where the source means a missing value."""
    field = F.col("fields")[column.name]
    text = field if column.type == "string" else F.trim(field)
    return F.when(~text.isin("", null_token), text)


def _cast(column: Column) -> Expression:
    text = F.col(_TEXT + column.name)
    if column.type == "string":
        return text
    cast = F.when(text.rlike(f"^({_FORMS[column.type]})$"), text.try_cast(_sql_type(column)))
    return (
        F.nullif(F.nullif(cast, F.lit(float("inf"))), F.lit(float("-inf")))
        if column.type == "double"
        else cast
    )


def _complaint(column: Column, required: bool) -> Expression:
    """What is wrong with a value; null when nothing is."""
    text, kind = F.col(_TEXT + column.name), _ARTICLES.get(column.type, f"a {column.type}")
    unreadable = F.concat(
        F.lit(f"{column.name}: '"), F.left(text, F.lit(_SHOWN)), F.lit(f"' is not {kind}")
    )
    complaint = F.when(text.isNotNull() & F.col(column.name).isNull(), unreadable)
    return (
        complaint.when(text.isNull(), f"{column.name}: no value, but it is required")
        if required
        else complaint
    )


def _without_duplicates(rows: DataFrame, feed: Feed) -> DataFrame:
    """The first good row of a key stays good; later ones of the same drop get a reason."""
    first = F.min(F.when(F.col("reason").isNull(), F.col("source_line"))).over(
        Window.partitionBy("landed_date", *feed.key)
    )
    key = F.concat_ws(
        ", ", *(F.concat(F.lit(f"{name} "), F.col(name).cast("string")) for name in feed.key)
    )
    complaint = F.concat(F.lit("key: "), key, F.lit(" comes twice, first on line "), F.col(_FIRST))
    duplicate = F.when(F.col("source_line") > F.col(_FIRST), complaint)
    return (
        rows.withColumn(_FIRST, first)
        .withColumn("reason", F.coalesce("reason", duplicate))
        .drop(_FIRST)
    )
