"""Reference tables hold whole snapshots by the day on which a changed file landed.

This tells which one a day sees.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

if TYPE_CHECKING:
    from pipelines.days import Days

_DAY = "_day"
"""Column of the days that see a snapshot: no feed has one whose name begins so."""


def latest_by_day(snapshots: DataFrame, days: Days) -> DataFrame:
    """For each day the rows of the latest snapshot landed by then.

    `landed_date` becomes that day.
    """
    landed = snapshots.agg(F.collect_set("landed_date").alias("landed"))
    every_day = F.sequence(F.lit(days.first), F.lit(days.last))
    each_day = landed.select("landed", F.explode(every_day).alias(_DAY))
    by_then = F.filter("landed", lambda date: date <= F.col(_DAY))
    latest = F.array_max(by_then).alias("landed_date")
    # A day before the first snapshot sees none.
    chosen = each_day.select(_DAY, latest).where(F.col("landed_date").isNotNull())
    # One row a day: every task can have them all, and the snapshots need no shuffle.
    seen = snapshots.join(F.broadcast(chosen), "landed_date")
    return seen.drop("landed_date").withColumnRenamed(_DAY, "landed_date")
