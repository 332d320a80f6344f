"""Good rows of one drop that share a key: the first stays good, each other gets a reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from jobs.ingestion.text import beginning

if TYPE_CHECKING:
    from pyspark.sql import Column as Expression

    from pipelines.feeds import Feed

_FIRST = "_first_line"
"""Column for the first good line of a row's key."""
_TIMES = "_times"
"""Column for how many good rows a key has."""
Keep = Callable[[DataFrame], DataFrame]
"""Has Spark keep rows that are read several times."""


def marked(rows: DataFrame, feed: Feed) -> DataFrame:
    """The rows, the duplicates among them with their reason, in the query that reads them."""
    same_key = Window.partitionBy("landed_date", *feed.key)
    return _with_reasons(rows.withColumn(_FIRST, _first_line().over(same_key)), feed)


def marked_by_keys(rows: DataFrame, feed: Feed, keep: Keep) -> DataFrame:
    """The same rows as of `marked`, without the texts of good records, kept by `keep`.

    For many rows, which a window would move and sort whole: here a query of its own moves the keys
    alone. Where some come twice, what was read is read once more.

    Args:
        rows: To be marked.
        feed: Whose rows they are.
        keep: For what is read several times.
    """
    read = keep(_without_good_texts(rows))
    key = ["landed_date", *feed.key]
    good = read.where("reason IS NULL").groupBy(*key)
    first = _first_line().alias(_FIRST)
    times = good.agg(first, F.count("*").alias(_TIMES))
    is_shared = F.col(_TIMES) > 1
    twice = keep(times.where(is_shared).select(*key, _FIRST))
    if twice.isEmpty():
        return read
    # A good row has all of its key: no null is to be compared.
    joined = rows.join(twice, key, "left")
    marked_rows = _with_reasons(joined, feed).select(*rows.columns)
    return keep(_without_good_texts(marked_rows))


def _without_good_texts(rows: DataFrame) -> DataFrame:
    """Less to keep: quarantine alone shows the text of a record."""
    is_bad = F.col("reason").isNotNull()
    return rows.withColumn("record", F.when(is_bad, F.col("record")))


def _first_line() -> Expression:
    is_good = F.col("reason").isNull()
    return F.min(F.when(is_good, F.col("source_line")))


def _with_reasons(rows: DataFrame, feed: Feed) -> DataFrame:
    complaint = F.concat(
        F.lit("key: "),
        F.concat_ws(", ", *map(_named_value, feed.key)),
        F.lit(" comes twice, first on line "),
        F.col(_FIRST),
    )
    duplicate = F.when(F.col("source_line") > F.col(_FIRST), complaint)
    return rows.withColumn("reason", F.coalesce("reason", duplicate)).drop(_FIRST)


def _named_value(name: str) -> Expression:
    shown = beginning(F.col(name).cast("string"))
    return F.concat(F.lit(f"{name} "), shown)
