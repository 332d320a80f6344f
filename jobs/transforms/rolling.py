"""The two tables of a `Rolling` declaration: daily sums, and the figures of windows over them."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F
from pyspark.sql.types import DecimalType, IntegralType

from jobs.transforms.columns import joined, scoring_moment

if TYPE_CHECKING:
    from pyspark.sql import Column

    from pipelines.days import Days
    from pipelines.rolling import Grain, Rolling, Statistic

_GRAIN, _KEY = "_grain", "_key"
_DAY, _AGE, _NEXT, _HELD = "_day", "_age", "_next", "_held"
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

    A key has a row on every day on which the longest window holds something of it. A sum that is
    null on a day adds nothing.
    """
    are_many = len(days) > max(rolling.windows)
    totals = _totals_by_change if are_many and _are_exact(daily, rolling) else _totals_by_day
    rows = totals(daily, rolling, days)
    moment = scoring_moment(timezone).alias("event_timestamp")
    figures = [_figure(statistic, window) for statistic, window in rolling.figures]
    return rows.select("landed_date", moment, "grain", "key", *figures)


def _are_exact(daily: DataFrame, rolling: Rolling) -> bool:
    """Whether what was added can be taken away again: of doubles that leaves another sum."""
    kinds = [daily.schema[one.name].dataType for one in rolling.sums]
    return all(isinstance(kind, IntegralType | DecimalType) for kind in kinds)


def _totals_by_day(daily: DataFrame, rolling: Rolling, days: Days) -> DataFrame:
    """Of few days: each adds up what its windows hold."""
    longest = max(rolling.windows)
    first = F.greatest(F.col("landed_date"), F.lit(days.first))
    last_inside = F.date_add("landed_date", longest - 1)
    last = F.least(last_inside, F.lit(days.last))
    # A day's sums count on every later day whose longest window still holds that day.
    counted_on = F.explode(F.sequence(first, last)).alias(_DAY)
    # Of sums that no window of the days holds, the sequence would run backwards.
    counted = daily.where(first <= last).select("*", counted_on)
    age = F.datediff(_DAY, "landed_date")
    totals = []
    for window, one in product(rolling.windows, rolling.sums):
        inside = F.when(age < window, F.col(one.name))
        total = F.sum(_or_zero(inside))
        totals.append(total.alias(_name(one.name, window)))
    day = F.col(_DAY).alias("landed_date")
    return counted.groupBy(day, "grain", "key").agg(*totals)


def _totals_by_change(daily: DataFrame, rolling: Rolling, days: Days) -> DataFrame:
    """Of many days: what comes into each window and what leaves it, summed up over time.

    So a day's sums are looked at once for each window, and not on each day of the longest.
    """
    changes = _changes(daily, rolling, days)
    of_key = Window.partitionBy("grain", "key").orderBy(_DAY)
    # By days and not by rows: several may change the totals of one.
    so_far = of_key.rangeBetween(Window.unboundedPreceding, Window.currentRow)
    longest = max(rolling.windows)
    days_held = F.sum(_change(F.lit(1), longest)).over(so_far)
    next_change = F.lead(_DAY).over(of_key)
    totals = []
    for window, one in product(rolling.windows, rolling.sums):
        change = _change(_or_zero(F.col(one.name)), window)
        total = F.sum(change).over(so_far)
        totals.append(total.alias(_name(one.name, window)))
    helpers = (_DAY, next_change.alias(_NEXT), days_held.alias(_HELD))
    summed = changes.select("grain", "key", *helpers, *totals)
    last = F.coalesce(F.date_sub(_NEXT, 1), F.lit(days.last))
    # Of several changes of a day the last one, which no other of that day follows.
    is_last = F.col(_DAY) <= last
    same_until = F.explode(F.sequence(_DAY, last)).alias("landed_date")
    return summed.where(is_last & (F.col(_HELD) > 0)).select(same_until, "*")


def _changes(daily: DataFrame, rolling: Rolling, days: Days) -> DataFrame:
    """The sums on each day on which they come into the windows, or leave one of them."""
    ages = F.array(*map(F.lit, (0, *rolling.windows)))
    aged = daily.select("*", F.explode(ages).alias(_AGE))
    changed_on = F.date_add("landed_date", F.col(_AGE))
    # Before the first of the days only counts what has come of it all.
    day = F.greatest(changed_on, F.lit(days.first))
    changes = aged.withColumn(_DAY, day)
    return changes.where(F.col(_DAY) <= F.lit(days.last))


def _change(amount: Column, window: int) -> Column:
    """What comes into the window at the age of 0 days, and leaves it at that of its length."""
    comes = F.when(F.col(_AGE) == 0, amount)
    return comes.when(F.col(_AGE) == window, -amount).otherwise(0)


def _or_zero(amount: Column) -> Column:
    """Not null: in a shorter window there may be nothing."""
    return F.coalesce(amount, F.lit(0))


def _name(daily_sum: str, window: int) -> str:
    return f"{daily_sum}_{window}"


def _figure(statistic: Statistic, window: int) -> Column:
    amount = F.col(_name(statistic.amount, window))
    if statistic.is_count:
        return amount.alias(statistic.column(window))
    count = F.col(_name(statistic.per, window))
    # As doubles, or a mean of decimals would be cut off at six places.
    mean = amount.cast("double") / count
    return F.when(count > 0, mean).alias(statistic.column(window))
