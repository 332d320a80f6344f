"""Where a row came from: the day of its drop, its file, and its place in the file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING
from urllib.parse import quote

from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from jobs.ingestion import splits
from pipelines.feeds import PROVENANCE
from pipelines.places import literal

if TYPE_CHECKING:
    from pyspark.sql import Column as Expression

    from jobs.ingestion.contents import Drop
    from pipelines.feeds import Feed

_DAY = r"(\d{4}-\d{2}-\d{2})"
"""A day as `Feed.file` writes it into a path."""


def numbered_lines(
    spark: SparkSession, feed: Feed, drops: Sequence[Drop], first_line: int
) -> DataFrame:
    """The files' lines as `record`, with their provenance.

    Lines of a large file are numbered where its splits are read, those of others by a window over
    each file.

    Args:
        spark: Who reads.
        feed: Whose files they are.
        drops: The files.
        first_line: Number of the first line with data; those before it, and blank ones at the end,
            are left out.
    """
    large = [drop for drop in drops if drop.marks]
    others = [drop for drop in drops if not drop.marks]
    parts = [_numbered_by_window(spark, feed, others, first_line)] if others else []
    if large:
        found = splits.lines(spark, large)
        # What ends a line is in it still.
        record = F.rtrim("value", F.lit("\r\n")).alias("record")
        parts.append(found.select(record, "landed_date", "source_line"))
    lines = reduce(DataFrame.union, parts)
    return lines.withColumn("source_file", source_file(feed, drops)).select("record", *PROVENANCE)


def _numbered_by_window(
    spark: SparkSession, feed: Feed, drops: Sequence[Drop], first_line: int
) -> DataFrame:
    # By default a lone '\r' ends a line too, but not for those who count lines without Spark.
    text = spark.read.option("lineSep", "\n").text(spark_paths(drops))
    lines = text.select(
        F.rtrim("value", F.lit("\r")).alias("record"),
        landed_date(feed, drops).alias("landed_date"),
        F.col("_metadata.file_block_start").alias("block"),
        # Grows within a block, whose lines are read in order.
        F.monotonically_increasing_id().alias("position"),
    )
    # A feed has one file a day, so that the day stands for the file.
    in_file = Window.partitionBy("landed_date")
    in_order = in_file.orderBy("block", "position")
    numbered = lines.withColumn("source_line", F.row_number().over(in_order))
    filled_line = F.when(F.col("record") != "", F.col("source_line"))
    last = F.max(filled_line).over(in_file)
    is_data = F.col("source_line").between(first_line, F.col("last"))
    data = numbered.withColumn("last", last).where(is_data)
    return data.select("record", "landed_date", "source_line")


def landed_date(feed: Feed, drops: Sequence[Drop]) -> Expression:
    """The day of the drop that a row was read from."""
    if feed.is_reference:
        return F.lit(drops[0].day)
    before, _, after = feed.path.partition("{date}")
    path = f"/{_in_url(before)}{_DAY}{_in_url(after)}$"
    return F.regexp_extract("_metadata.file_path", path, 1).cast("date")


def source_file(feed: Feed, drops: Sequence[Drop]) -> Expression:
    """The file of a row with a `landed_date`, as a path below the landing folder."""
    first = drops[0]
    if feed.is_reference:
        return F.lit(first.source_file)
    folder = first.source_file.removesuffix(feed.file(first.day))
    before, _, after = feed.path.partition("{date}")
    day = F.col("landed_date").cast("string")
    return F.concat(F.lit(folder + before), day, F.lit(after))


def spark_paths(drops: Sequence[Drop]) -> list[str]:
    """The paths of the files, as Spark must be given them."""
    return [literal(str(drop.path)) for drop in drops]


def _in_url(text: str) -> str:
    """A regular expression for a part of a path as Spark's URLs show it.

    Which characters they escape differs from what Python's `quote` would: either form is taken.
    """
    return "".join(_char_in_url(char) for char in text)


def _char_in_url(char: str) -> str:
    plain = re.escape(char)
    escaped = quote(char, safe="/")
    return plain if escaped == char else f"(?:{plain}|{escaped})"
