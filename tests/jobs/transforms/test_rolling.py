"""Windows over daily sums: of many days at once as of each of them alone."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from decimal import Decimal
from functools import reduce
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs.transforms import rolling as transforms
from pipelines.days import Days
from pipelines.rolling import DailySum, Grain, Rolling, Statistic

FIRST = date(2024, 4, 1)
Sums = tuple[Any, ...]
"""The number of the day, the key, and both sums."""
ROLLING = Rolling(
    sums=(
        DailySum(name="sold", sql="sum(units)"),
        DailySum(name="paid", sql="sum(price)"),
    ),
    statistics=(
        Statistic(name="sold", amount="sold"),
        Statistic(name="paid", amount="paid"),
        Statistic(name="price", amount="paid", per="sold"),
    ),
    grains=(
        Grain(
            name="shop",
            columns=("shop",),
            windows=(1, 3, 7),
            statistics=("sold", "paid", "price"),
        ),
    ),
)
World = Mapping[int, tuple[int | None, Decimal | None]]
DAY_OF_SUMS = st.tuples(
    st.none() | st.integers(0, 9),
    st.none() | st.decimals(-99, 99, places=2),
)
WORLD = st.dictionaries(st.integers(0, 25), DAY_OF_SUMS, max_size=8)
"""Sums by the day on which they were made, from some days before the first to some after the last.
"""


def day_of(number: int) -> date:
    return FIRST + timedelta(days=number)


def sums(spark: SparkSession, *rows: Sums, paid: str = "decimal(9,2)") -> DataFrame:
    dated = [(day_of(number), "shop", *others) for number, *others in rows]
    schema = f"landed_date date, grain string, key string, sold int, paid {paid}"
    return spark.createDataFrame(dated, schema)


def figures(daily: DataFrame, days: Days) -> DataFrame:
    return transforms.window_figures(daily, ROLLING, days, "UTC")


def one_by_one(daily: DataFrame, days: Days) -> DataFrame:
    return reduce(DataFrame.unionByName, [figures(daily, Days.of(day)) for day in days])


def told(rows: DataFrame) -> list[tuple[Any, ...]]:
    return sorted(map(tuple, rows.collect()), key=str)


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    worlds=st.lists(WORLD, min_size=20, max_size=40),
    first=st.integers(0, 12),
    more=st.integers(7, 14),
)
def test_many_days_at_once_have_the_figures_of_each_alone(
    spark: SparkSession, worlds: list[World], first: int, more: int
) -> None:
    rows: list[tuple[Any, ...]] = []
    for number, world in enumerate(worlds):
        for day, both_sums in world.items():
            rows.append((day, str(number), *both_sums))
    daily = sums(spark, *rows).localCheckpoint()
    days = Days(day_of(first), day_of(first + more))
    at_once, alone = figures(daily, days), one_by_one(daily, days)
    assert at_once.schema.simpleString() == alone.schema.simpleString()
    assert told(at_once) == told(alone)


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the ways in which totals were made."""
    taken: list[str] = []

    def noted(name: str) -> None:
        way = getattr(transforms, name)

        def note(*given: Any) -> Any:
            taken.append(name)
            return way(*given)

        monkeypatch.setattr(transforms, name, note)

    noted("_totals_by_day")
    noted("_totals_by_change")
    return taken


@pytest.mark.parametrize(
    ("number", "way"), [(1, "_totals_by_day"), (7, "_totals_by_day"), (8, "_totals_by_change")]
)
def test_more_days_than_the_longest_window_holds_are_summed_up_by_what_changes(
    spark: SparkSession, ways: list[str], number: int, way: str
) -> None:
    of_tenth = (9, "a", 3, Decimal(1))
    daily = sums(spark, (0, "a", 1, Decimal(2)), of_tenth)
    days = Days(FIRST, day_of(number - 1))
    found = figures(daily, days)
    assert ways == [way]
    # The first sums are held for a week, those of the tenth day by none of these.
    assert found.count() == min(number, 7)


def test_sums_of_doubles_are_never_made_of_a_difference(
    spark: SparkSession, ways: list[str]
) -> None:
    # Added to the first and taken from it again, the second would be 0.
    rows = (0, "a", 1, 1e16), (1, "a", 1, 1.0)
    daily = sums(spark, *rows, paid="double")
    found = figures(daily, Days(FIRST, day_of(20)))
    assert ways == ["_totals_by_day"]
    of_second = found.where(F.col("landed_date") == day_of(1))
    assert [row["paid_1"] for row in of_second.collect()] == [1.0]


def test_a_day_whose_sum_is_null_adds_nothing(spark: SparkSession) -> None:
    of_a = (0, "a", 2, None), (1, "a", 2, Decimal("3.00"))
    daily = sums(spark, *of_a, (0, "b", 2, None))
    found = figures(daily, Days.of(day_of(1)))
    shown = found.select("key", "sold_7", "paid_7", "price_7")
    assert told(shown) == [
        ("a", 4, Decimal(3), 0.75),
        ("b", 2, Decimal(0), 0.0),
    ]
