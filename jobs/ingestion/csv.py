"""CSV, plain or gzipped: UTF-8, a header line, then one record a line."""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from io import SEEK_END, BufferedIOBase, RawIOBase
from pathlib import Path
from typing import TYPE_CHECKING

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs.ingestion.contents import Contents, Drop, Unfit
from jobs.ingestion.open_texts import MOST_FOUND, OpenTexts
from jobs.ingestion.provenance import numbered_lines
from jobs.ingestion.splits import count_lines
from jobs.ingestion.text import line_problem
from pipelines.feeds import PROVENANCE
from pipelines.places import opened

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from pyspark.sql import Column as Expression

    from pipelines.feeds import Feed

_FIRST_LINE = 2
"""With data; the header is the first."""
_HEADER_BYTES = 1 << 20
"""A longer first line is none: the file is something else."""
_MOST_COMMAS = 10_000
"""A line with more is no record. Spark's parser would fail on it, and the stage with it."""
_PIECE_BYTES = 4_000_000
"""Unpacked at once."""
_WITHIN = "record: within a text that was opened in line %d; a record must be one line"
_ODD = "_odd_record"
"""Name by which the parser returns a record with the wrong number of fields."""
# A quote inside of quotes is written twice. A record that does not fit is kept, not dropped.
_PARSER = {"quote": '"', "escape": '"', "mode": "PERMISSIVE", "columnNameOfCorruptRecord": _ODD}


@dataclass(frozen=True, kw_only=True, slots=True)
class Csv:
    """CSV files. A layout is their header."""

    is_gzipped: bool = False

    def contents(self, path: Path, feed: Feed) -> Contents:
        """The header's columns, and the lines after it without blank ones at the end."""
        if not self.is_gzipped:
            with opened(path) as file:
                return _contents(file)
        try:
            _refuse_padding(path)
            with opened(path) as packed, gzip.open(packed, "rb") as file:
                # It cannot be read from its midst.
                return replace(_contents(file), marks=())
        except EOFError:
            raise Unfit("the gzip file is cut off") from None
        except (gzip.BadGzipFile, zlib.error) as error:
            raise Unfit(f"the gzip file is damaged: {error}") from None

    def records(self, spark: SparkSession, feed: Feed, drops: Sequence[Drop]) -> DataFrame:
        """Every line after the header. Spark decompresses by the file's ending."""
        header = drops[0].layout
        assert isinstance(header, tuple), "a CSV file's layout is its header"
        lines = numbered_lines(spark, feed, drops, first_line=_FIRST_LINE)
        # One projection after the other: each is used several times by the next, and Spark would
        # not share them inside one.
        checked = _with_problems(spark, lines, drops)
        is_good = F.col("_broken").isNull()
        fields = F.from_csv("record", _schema(header, feed), _PARSER)
        parsed = checked.withColumn("_fields", F.when(is_good, fields))
        texts = [F.col("_fields")[name].alias(name) for name in feed.column_names]
        broken = F.coalesce("_broken", _wrong_count(len(header))).alias("_broken")
        return parsed.select(*texts, broken, "record", *PROVENANCE)


def _refuse_padding(path: Path) -> None:
    """Refuse a gzip file with zeros behind its end: Python reads over them, Spark fails.

    Raises:
        Unfit: it has some.
    """
    with opened(path) as file:
        size = file.seek(0, SEEK_END)
        file.seek(max(0, size - 1))
        # So ends also what is whole and below 16 MB: the last bytes are that size.
        if file.read() != b"\0":
            return
        file.seek(0)
        with gzip.open(_Beginning(file, size - 1)) as unpacked, suppress(EOFError):
            # Without its last byte it is cut off, unless that is behind its end.
            while unpacked.read(_PIECE_BYTES):
                pass
            raise Unfit("the gzip file is damaged: it ends with zeros")


class _Beginning(RawIOBase):
    """So many bytes of a file from where it stands."""

    def __init__(self, file: BufferedIOBase, size: int) -> None:
        self._file = file
        self._left = size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        into = memoryview(buffer)
        found = self._file.read(min(len(into), self._left))
        self._left -= len(found)
        into[: len(found)] = found
        return len(found)


def _contents(file: BufferedIOBase) -> Contents:
    try:
        # Some programs begin a file with a byte order mark.
        first = file.readline(_HEADER_BYTES).decode("utf-8-sig").rstrip("\r\n")
        header = tuple(next(csv.reader([first], strict=True), ()))
    except UnicodeDecodeError:
        raise Unfit("the header is not UTF-8 text") from None
    except csv.Error as error:
        lone_cr = "the lines end with a lone CR; have them end with LF or CRLF"
        why = lone_cr if "\r" in first else str(error)
        raise Unfit(f"the header is no line of CSV: {why}") from None
    if not header:
        raise Unfit("the file is empty; a drop without rows still has a header")
    texts = OpenTexts(_FIRST_LINE)
    lines = count_lines(file, _FIRST_LINE, texts.see)
    if texts.are_too_many:
        raise Unfit(
            f"more than {MOST_FOUND:,} of its lines lie within texts of several lines; a record "
            "must be one line"
        )
    return Contents(
        columns=header,
        layout=header,
        records=lines.records,
        marks=lines.marks,
        within_texts=texts.end(),
    )


def _schema(header: Iterable[str], feed: Feed) -> str:
    # What is not read may be called anything.
    known = feed.column_names
    names = [name if name in known else f"_{at}" for at, name in enumerate(header)]
    # All texts: `records.py` casts, and says what does not read as its type.
    declared = [f"`{name}` string" for name in (*names, _ODD)]
    return ", ".join(declared)


def _with_problems(spark: SparkSession, lines: DataFrame, drops: Sequence[Drop]) -> DataFrame:
    """The lines with why each is no CSV record (`_broken`); null when it may be one."""
    within = []
    for drop in drops:
        within += [(drop.day, one.first, one.last) for one in drop.within_texts]
    if not within:
        return lines.withColumn("_broken", _problem())
    texts = spark.createDataFrame(within, "landed_date date, first int, last int")
    inner = texts.select(
        "landed_date",
        F.explode(F.sequence("first", "last")).alias("source_line"),
        F.format_string(_WITHIN, F.col("first") - 1).alias("_within"),
    )
    # A feed has one file a day, so that the day stands for the file.
    told = lines.join(F.broadcast(inner), ["landed_date", "source_line"], "left")
    return told.withColumn("_broken", F.coalesce(_problem(), "_within"))


def _problem() -> Expression:
    """What of a line itself tells that it is no CSV record; null when nothing does."""
    record = F.col("record")
    quotes = _count(record, '"')
    not_closed = "record: a quote is opened and not closed on the line; a record must be one line"
    too_many = F.format_string("record: %d fields", _commas(record) + 1)
    return (
        line_problem()
        .when(quotes % 2 == 1, not_closed)
        .when(_commas(record) > _MOST_COMMAS, too_many)
    )


def _commas(record: Expression) -> Expression:
    return _count(record, ",")


def _count(record: Expression, character: str) -> Expression:
    without = F.replace(record, F.lit(character), F.lit(""))
    return F.length(record) - F.length(without)


def _wrong_count(expected: int) -> Expression:
    # Commas inside of quotes separate nothing.
    found = _commas(F.regexp_replace("record", '"[^"]*"', "")) + 1
    complaint = F.format_string(f"record: %d fields instead of {expected}", found)
    return F.when(F.col("_fields")[_ODD].isNotNull(), complaint)
