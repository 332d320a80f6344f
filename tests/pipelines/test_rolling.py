"""A declaration of what rolls over the past gives its features, and refuses what cannot be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pipelines.errors import UsageError
from pipelines.rolling import DailySum, Grain, Rolling, Statistic, rolling_views

TRIPS = Rolling(
    sums=(
        DailySum(name="n", sql="count(1)"),
        DailySum(name="paid", sql="sum(cents)"),
    ),
    statistics=(
        Statistic(name="n", amount="n", least=0),
        Statistic(name="fare", amount="paid", per="n", least=0, most=100_000),
    ),
    grains=(
        Grain(
            name="zone",
            columns=("zone",),
            windows=(7, 28),
            statistics=("n", "fare"),
        ),
        Grain(
            name="city",
            columns=("city",),
            windows=(1,),
            statistics=("fare",),
        ),
    ),
)


def test_features_are_named_by_grain_statistic_and_window() -> None:
    zone, city = map(TRIPS.features, TRIPS.grains)
    assert [feature.name for feature in zone] == [
        "zone_n_7",
        "zone_n_28",
        "zone_fare_7",
        "zone_fare_28",
    ]
    assert [feature.name for feature in city] == ["city_fare_1"]


def test_a_count_is_whole_zero_when_unknown_and_required_and_a_mean_is_not() -> None:
    count, _, mean, _ = TRIPS.features(TRIPS.grains[0])
    assert (count.is_whole, count.when_unknown, count.is_required) == (True, 0, True)
    assert (mean.is_whole, mean.when_unknown, mean.is_required) == (False, None, False)
    assert (mean.least, mean.most) == (0, 100_000)


@pytest.mark.parametrize(
    ("sql", "is_whole"),
    [
        ("count(1)", True),
        (" COUNT_IF(delay > 15) ", True),
        ("count(DISTINCT plane)", True),
        ("sum(seats)", None),
        ("count(delay) / count(1)", None),
        ("count(1) * 0.5", None),
    ],
)
def test_what_only_counts_is_whole_and_of_any_other_sum_its_table_tells(
    sql: str, is_whole: bool | None
) -> None:
    assert DailySum(name="one", sql=sql).is_whole is is_whole


def test_every_count_is_kept_and_a_mean_only_where_it_is_read() -> None:
    columns = [statistic.column(days) for statistic, days in TRIPS.figures]
    assert columns == ["n_1", "fare_1", "n_7", "fare_7", "n_28", "fare_28"]
    without_city = replace(TRIPS, grains=TRIPS.grains[:1])
    assert [s.column(days) for s, days in without_city.figures] == [
        "n_7",
        "fare_7",
        "n_28",
        "fare_28",
    ]


def test_each_grain_is_a_view_by_its_own_key() -> None:
    zone, city = rolling_views(TRIPS, table="rolling", max_age_hours=22)
    assert (zone.name, zone.keys, zone.constants) == (
        "zone",
        {"key": "zone_key"},
        {"grain": "zone"},
    )
    assert (city.table, city.max_age_hours) == ("rolling", 22)


def test_sums_statistics_and_grains_have_names_of_their_own() -> None:
    for kind in ("sums", "statistics", "grains"):
        first, *others = getattr(TRIPS, kind)
        shouted = replace(first, name=first.name.upper())
        twice: dict[str, Any] = {kind: (first, shouted, *others)}
        told = rf"Rolling has two {kind} named \['{first.name}'\]"
        with pytest.raises(UsageError, match=told):
            replace(TRIPS, **twice)


@pytest.mark.parametrize("name", ["landed_date", "grain", "Key"])
def test_a_sum_named_as_a_column_that_is_always_there_is_refused(name: str) -> None:
    odd = DailySum(name=name, sql="count(1)")
    with pytest.raises(UsageError, match=rf"sums named \['{name}'\]"):
        replace(TRIPS, sums=(*TRIPS.sums, odd))


def test_a_statistic_of_a_sum_that_nobody_makes_is_refused() -> None:
    odd = Statistic(name="tip", amount="tips")
    with pytest.raises(UsageError, match=r"sums that nobody makes: \['tips'\]"):
        replace(TRIPS, statistics=(odd,), grains=())


def test_a_grain_that_reads_an_unknown_statistic_is_refused() -> None:
    odd = replace(TRIPS.grains[0], statistics=("tip",))
    with pytest.raises(UsageError, match=r"unknown statistics: \['tip'\]"):
        replace(TRIPS, grains=(odd,))
