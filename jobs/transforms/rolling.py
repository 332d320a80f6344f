"""The two tables of a `Rolling` declaration: daily sums, and the figures of windows over them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.transforms.columns import joined, scoring_moment

if TYPE_CHECKING:
    from pyspark.sql import Column

    from pipelines.days import Days
    from pipelines.rolling import Grain, Rolling, Statistic

_GRAIN, _KEY = "_grain", "_key"
"""Columns beside those of the rows: no feed has one whose name begins so."""


def daily_sums(rows: DataFrame, rolling: Rolling) -> DataFrame:
    """The declared sums of each day by grain and key; rows without a key do not count."""
    # A row counts once for every grain: one pass over the rows, however many grains there are.
    keys = [_key(grain) for grain in rolling.grains]
    keyed = rows.select("*", F.inline(F.array(*keys)))
    sums = [F.expr(one.sql).alias(one.name) for one in rolling.sums]
    known = keyed.where(F.col(_KEY).isNotNull())
    grain = F.col(_GRAIN).alias("grain")
    key = F.col(_KEY).alias("key")
    return known.groupBy("landed_date", grain, key).agg(*sums)


def _key(grain: Grain) -> Column:
    name = F.lit(grain.name).alias(_GRAIN)
    return F.struct(name, joined(*grain.columns).alias(_KEY))


def window_figures(daily: DataFrame, rolling: Rolling, days: Days, timezone: str) -> DataFrame:
    """The declared statistics over the windows that end with each day.

    A key has a row on every day on which the longest window holds something of it.
    """
    longest = max(rolling.windows)
    first = F.greatest(F.col("landed_date"), F.lit(days.first))
    last_inside = F.date_add("landed_date", longest - 1)
    last = F.least(last_inside, F.lit(days.last))
    # A day's sums count on every later day whose longest window still holds that day.
    counted_on = F.explode(F.sequence(first, last)).alias("day")
    # Of sums that no window of the days holds, the sequence would run backwards.
    counted = daily.where(first <= last).select("*", counted_on)
    totals = []
    for window in rolling.windows:
        totals += [_total(one.name, window) for one in rolling.sums]
    day = F.col("day").alias("landed_date")
    rows = counted.groupBy(day, "grain", "key").agg(*totals)
    moment = scoring_moment(timezone).alias("event_timestamp")
    figures = [_figure(statistic, window) for statistic, window in rolling.figures]
    return rows.select("landed_date", moment, "grain", "key", *figures)


def _total(name: str, window: int) -> Column:
    age = F.datediff("day", "landed_date")
    # 0 and not null: in a shorter window there may be nothing.
    inside = F.when(age < window, F.col(name)).otherwise(0)
    return F.sum(inside).alias(f"{name}_{window}")


def _figure(statistic: Statistic, window: int) -> Column:
    amount = F.col(f"{statistic.amount}_{window}")
    if statistic.is_count:
        return amount.alias(statistic.column(window))
    count = F.col(f"{statistic.per}_{window}")
    # As doubles, or a mean of decimals would be cut off at six places.
    mean = amount.cast("double") / count
    return F.when(count > 0, mean).alias(statistic.column(window))
