"""From records of text to typed rows, each with the reason why it must be quarantined or none.

DataFrame in, DataFrame out, and the same rules whatever the format of the files.
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Iterable, Sequence
from functools import partial, reduce
from itertools import chain
from typing import TYPE_CHECKING

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs.ingestion import duplicates
from jobs.ingestion.formats import FORMATS
from jobs.ingestion.text import beginning
from pipelines.feeds import PROVENANCE

if TYPE_CHECKING:
    from pyspark.sql import Column as Expression

    from jobs.ingestion.contents import Drop
    from jobs.ingestion.duplicates import Keep
    from pipelines.feeds import Column, Feed

QUARANTINE = (*PROVENANCE, "reason", "record")
COMPLAINT = "_complaint"
"""Column for what is wrong with a value that is read anew."""
_PROVENANCE_SCHEMA = "landed_date date, source_file string, source_line int"
_MANY = 2_000_000
"""Records: fewer take Spark less time when duplicates are found in the query that reads them."""
_SQL_TYPES = {"long": "bigint"}
"""Declared type -> Spark's name of it, where that is another."""
_MINUTE = r"[1-9]\d{3}-\d{2}-\d{2}[T ]\d{2}:\d{2}"
_ZONE = r"(Z|[+-]\d{2}:?\d{2})"
_WITHOUT_SECOND = rf"\A({_MINUTE}){_ZONE}\z"
"""An instant that Spark's cast does not read, as it is."""
_FORMS = {
    "int": r"[+-]?\d+",
    "long": r"[+-]?\d+",
    "double": r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?",
    "boolean": r"(?i)true|false",
    "date": r"[1-9]\d{3}-\d{2}-\d{2}",
    "timestamp": rf"{_MINUTE}(:\d{{2}}(\.\d{{1,6}})?)?{_ZONE}",
}
"""What a value must look like. Spark's casts alone are generous: '2013' is a date, 'NaN' a double,
a time needs no zone."""
_TOO_FINE = rf"{_MINUTE}:\d{{2}}\.\d{{7,}}{_ZONE}"
"""An instant of which Spark would keep no more than the microseconds."""
_BLANKS = r"\p{IsWhite_Space}+"
"""What Unicode calls white space, such as a tab or U+00A0."""
_COMPARED = {"int": "decimal(38,18)", "long": "decimal(38,18)", "double": "double"}
"""Type of a number -> the type as which it is compared with a null token: whole ones exactly."""
_ARTICLES = {"int": "an int", "timestamp": "a timestamp with its zone"}
"""How a reason names a type, where 'a' and the type would not do."""
_TEXT = "_text_of_"
"""Prefix of the columns with the texts from which values are cast."""
_BEFORE = "_before"
"""Column for the text of a value before it is read anew."""


def columns(feed: Feed) -> tuple[str, ...]:
    """Columns of the raw table of a feed."""
    return (*feed.column_names, *PROVENANCE)


def new_columns(drops: Iterable[Drop]) -> tuple[str, ...]:
    """Columns that the files add to the declared ones, each once."""
    names = chain.from_iterable(drop.new_columns for drop in drops)
    return tuple(dict.fromkeys(names))


def widened(feed: Feed, drops: Iterable[Drop]) -> Feed:
    """The feed with the columns that these files add."""
    return feed.with_new(new_columns(drops))


def _as_they_are(rows: DataFrame) -> DataFrame:
    return rows


def records(
    spark: SparkSession, feed: Feed, drops: Sequence[Drop], keep: Keep = _as_they_are
) -> DataFrame:
    """Every record of the files.

    The columns of the raw table, `record` (the record's text) and `reason` (null for a good row).
    Of many records the good ones have no `record`.

    Args:
        spark: Who reads.
        feed: Whose files they are.
        drops: The files.
        keep: Has Spark keep what is read several times.
    """
    if not drops:
        return keep(spark.createDataFrame([], _schema(feed)))
    source_format = FORMATS[feed.format]
    parts = []
    for drops_of_layout in _by_layout(drops):
        # Files of one layout have the same columns.
        own = widened(feed, drops_of_layout)
        found = source_format.records(spark, own, drops_of_layout)
        parts.append(_typed(found, own))
    # What another file has added is null in the rows of this one.
    by_name = partial(DataFrame.unionByName, allowMissingColumns=True)
    names = columns(widened(feed, drops))
    rows = reduce(by_name, parts).select(*names, "record", "reason")
    if sum(drop.records for drop in drops) < _MANY:
        return keep(duplicates.marked(rows, feed))
    return duplicates.marked_by_keys(rows, feed, keep)


def no_rows(spark: SparkSession, feed: Feed) -> DataFrame:
    """A raw table of the feed in which nothing is."""
    return records(spark, feed, ()).select(*columns(feed))


def reread(rows: DataFrame, feed: Feed, column: Column) -> DataFrame:
    """Rows of a raw table with the values of a column read as the type that it is declared with.

    Returns:
        The rows, and `COMPLAINT`: what is wrong with the value, null where nothing is. Nothing is
        where there is no value.
    """
    # By the rules of a file, so that the rows are those that its file would give.
    texts = rows.withColumn(column.name, F.col(column.name).cast("string"))
    texts = texts.withColumn(_BEFORE, F.col(column.name))
    text = _text(column, feed.null_token_of(column))
    texts = texts.withColumn(_TEXT + column.name, text)
    typed = texts.withColumn(column.name, _cast(column))
    complaint = _complaint(column, column.name in feed.required)
    # An older row may lack what is required since.
    was_there = F.col(_BEFORE).isNotNull()
    judged = typed.withColumn(COMPLAINT, F.when(was_there, complaint))
    return judged.drop(_TEXT + column.name, _BEFORE)


def sharing_keys(rows: DataFrame, feed: Feed) -> DataFrame:
    """Those rows of a raw table whose key another of their drop has too, but the first of each.

    With `COMPLAINT`.
    """
    unmarked = rows.withColumn("reason", F.lit(None).cast("string"))
    marked = duplicates.marked(unmarked, feed).withColumnRenamed("reason", COMPLAINT)
    return marked.where(F.col(COMPLAINT).isNotNull())


def _schema(feed: Feed) -> str:
    declared = [f"`{column.name}` {_sql_type(column)}" for column in feed.columns]
    return ", ".join([*declared, _PROVENANCE_SCHEMA, "record string", "reason string"])


def _sql_type(column: Column) -> str:
    return _SQL_TYPES.get(column.type, column.type)


def _by_layout(drops: Sequence[Drop]) -> list[list[Drop]]:
    # Headers that differ in their order need a schema each.
    groups: dict[Hashable, list[Drop]] = {}
    for drop in drops:
        groups.setdefault(drop.layout, []).append(drop)
    return list(groups.values())


def _typed(found: DataFrame, feed: Feed) -> DataFrame:
    # One projection after the other: each is used several times by the next, and Spark would not
    # share them inside one.
    texts = found.select(
        *(_text(column, feed.null_token_of(column)) for column in feed.columns),
        "_broken",
        "record",
        *PROVENANCE,
    )
    values = [_cast(column).alias(column.name) for column in feed.columns]
    typed = texts.select(*values, "*")
    complaints = [_complaint(column, column.name in feed.required) for column in feed.columns]
    # concat_ws skips nulls: without any complaint it gives ''.
    all_complaints = F.nullif(F.concat_ws("; ", *complaints), F.lit(""))
    return typed.select(
        *columns(feed),
        # What is no UTF-8 is quarantined too, as a text that can be shown.
        F.make_valid_utf8("record").alias("record"),
        F.coalesce("_broken", all_complaints).alias("reason"),
    )


def _text(column: Column, null_token: str) -> Expression:
    """The text of a value; null where the source means a missing one."""
    text = F.col(column.name)
    # Spaces belong to a text, but not to a number or a date.
    if column.type != "string":
        text = F.trim(text)
        null_token = null_token.strip(" ")
    is_missing = text.isin("", null_token)
    if column.type in _COMPARED and _is_number(null_token):
        is_missing |= _equals(text, null_token, _COMPARED[column.type])
    return F.when(~is_missing, text).alias(_TEXT + column.name)


def _is_number(null_token: str) -> bool:
    has_form = re.fullmatch(_FORMS["double"], null_token, re.ASCII)
    return has_form is not None and math.isfinite(float(null_token))


def _equals(text: Expression, null_token: str, kind: str) -> Expression:
    """Whether a text is the number of the null token, however it is written."""
    # What is too large to be compared is another number.
    number = F.when(_has_form(text, _FORMS["double"]), text.try_cast(kind))
    token = F.lit(null_token).try_cast(kind)
    return F.coalesce(number == token, F.lit(False))


def _has_form(text: Expression, form: str) -> Expression:
    # '\z', not '$': that one is true before a line break at the end too, which a cast forgives.
    return text.rlike(rf"\A({form})\z")


def _cast(column: Column) -> Expression:
    text = F.col(_TEXT + column.name)
    if column.type == "string":
        return text
    # A value may have the form and still not exist, such as 2013-02-30.
    is_formed = _has_form(text, _FORMS[column.type])
    if column.type == "timestamp":
        text = F.regexp_replace(text, _WITHOUT_SECOND, "$1:00$2")
    cast = F.when(is_formed, text.try_cast(_sql_type(column)))
    if column.type != "double":
        return cast
    # The cast makes infinity of a number too large for a double.
    below_infinity = F.nullif(cast, F.lit(float("inf")))
    return F.nullif(below_infinity, F.lit(float("-inf")))


def _complaint(column: Column, required: bool) -> Expression:
    """What is wrong with a value; null when nothing is."""
    text = F.col(_TEXT + column.name)
    before = F.lit(f"{column.name}: '")
    unreadable = F.concat(before, beginning(text), F.lit("' "), _fault(column))
    # A text that is there without a value: the cast could not read it.
    is_unreadable = text.isNotNull() & F.col(column.name).isNull()
    complaint = F.when(is_unreadable, unreadable)
    if not required:
        return complaint
    absent = complaint.when(text.isNull(), f"{column.name}: no value, but it is required")
    if column.type != "string":
        return absent
    blank = f"{column.name}: nothing but blanks, but it is required"
    return absent.when(_has_form(text, _BLANKS), blank)


def _fault(column: Column) -> Expression:
    """What is wrong with a text that cannot be read as a value of the column."""
    kind = _ARTICLES.get(column.type, f"a {column.type}")
    is_none = F.lit(f"is not {kind}")
    if column.type != "timestamp":
        return is_none
    is_too_fine = _has_form(F.col(_TEXT + column.name), _TOO_FINE)
    too_fine = F.when(is_too_fine, "has more than 6 digits after the second")
    return too_fine.otherwise(is_none)
