"""The derived tables of weather on rows made by hand: changing clocks, storms, missing values."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from pyspark.sql import DataFrame, SparkSession

from jobs.transforms import weather as transforms
from pipelines.days import Days
from pipelines.weather import OBSERVATIONS

NIGHT = date(2013, 1, 15)
SPRING = date(2013, 3, 9)
"""The night before a day of 23 hours."""
AUTUMN = date(2013, 11, 2)
"""The night before a day of 25 hours."""


def _stations(spark: SparkSession, landed: date = date(2012, 12, 31)) -> DataFrame:
    rows = [("EWR", landed), ("JFK", landed), ("LGA", landed)]
    return spark.createDataFrame(rows, "station string, landed_date date")


def _observations(spark: SparkSession, *rows: dict[str, object]) -> DataFrame:
    """Observations of EWR at hour 12 of the night, and what differs from them."""
    kinds = {column.name: column.type for column in OBSERVATIONS.columns}
    declared = [f"{name} {kind}" for name, kind in kinds.items()]
    schema = ", ".join([*declared, "landed_date date"])
    usual = {
        "station": "EWR",
        "observed_date": NIGHT,
        "hour": 12,
        "observed_at": datetime(2013, 1, 15, 17, tzinfo=UTC),
        "temp": 30.0,
        "landed_date": NIGHT,
    }
    names = [*kinds, "landed_date"]
    made = [{**usual, **row} for row in rows]
    values = [tuple(map(row.get, names)) for row in made]
    return spark.createDataFrame(values, schema)


@pytest.mark.parametrize(
    ("night", "hours"),
    [
        (NIGHT, 24),
        (SPRING, 23),
        (AUTUMN, 25),
    ],
)
def test_the_next_day_has_all_its_hours_also_when_the_clocks_change(
    spark: SparkSession, night: date, hours: int
) -> None:
    rows = transforms.hours(_stations(spark), Days.of(night)).toPandas()
    found = rows.groupby("station").size().to_dict()
    assert found == dict.fromkeys(("EWR", "JFK", "LGA"), hours)
    assert set(rows["forecast_date"]) == {night + timedelta(days=1)}
    one = rows[rows["station"] == "EWR"].sort_values("forecast_at")
    assert one["forecast_at"].is_unique
    first, *_, last = one["hour"]
    assert (first, last) == (0, 23)


def test_the_hour_that_does_not_exist_is_not_foretold_and_the_one_that_comes_twice_is_twice(
    spark: SparkSession,
) -> None:
    stations = _stations(spark).where("station = 'EWR'")
    spring = transforms.hours(stations, Days.of(SPRING))
    autumn = transforms.hours(stations, Days.of(AUTUMN))
    assert spring.where("hour = 2").count() == 0
    assert autumn.where("hour = 1").count() == 2


def test_a_range_of_nights_has_the_hours_of_each(spark: SparkSession) -> None:
    days = Days(NIGHT, NIGHT + timedelta(days=2))
    together = transforms.hours(_stations(spark), days)
    apart = [transforms.hours(_stations(spark), Days.of(day)) for day in days]
    one_by_one = apart[0].unionByName(apart[1]).unionByName(apart[2])
    assert together.exceptAll(one_by_one).count() == one_by_one.exceptAll(together).count() == 0


def test_a_storm_that_cannot_be_is_no_wind_and_the_evening_is_when_it_is_known(
    spark: SparkSession,
) -> None:
    rows = _observations(spark, {"wind_speed": 12.0}, {"wind_speed": 1048.36, "station": "JFK"})
    found = transforms.hourly(rows, Days.of(NIGHT)).selectExpr(
        "station", "wind_speed", "hour_key", "unix_seconds(available_at) AS available"
    )
    known = int(datetime(2013, 1, 16, 5, tzinfo=UTC).timestamp())
    assert sorted(map(tuple, found.collect())) == [
        ("EWR", 12.0, "EWR|12", known),
        ("JFK", None, "JFK|12", known),
    ]


def test_a_day_has_its_mean_and_its_change_of_pressure(spark: SparkSession) -> None:
    later = datetime(2013, 1, 15, 18, tzinfo=UTC)
    rows = _observations(
        spark,
        {"temp": 30.1, "pressure": 1010.0},
        {"temp": 33.2, "pressure": 1002.5, "observed_at": later, "hour": 13},
        {"temp": None, "station": "JFK"},
    )
    night = Days.of(NIGHT)
    daily = transforms.daily(transforms.hourly(rows, night), night)
    found = {row["station"]: row for row in daily.collect()}
    assert found["EWR"]["day_temp"] == pytest.approx(31.65, abs=1e-12)
    assert found["EWR"]["day_pressure_change"] == -7.5
    assert found["JFK"]["day_temp"] is None


def test_windows_hold_the_days_that_end_with_the_night(spark: SparkSession) -> None:
    temps = {0: 30.0, 1: 33.0, 2: 36.0, 9: 60.0}
    rows = [
        {
            "temp": temp,
            "landed_date": NIGHT - timedelta(days=ago),
            "observed_date": NIGHT - timedelta(days=ago),
        }
        for ago, temp in temps.items()
    ]
    tiles = transforms.tiles(_observations(spark, *rows), Days.of(NIGHT))
    (row,) = transforms.rolling(tiles, Days.of(NIGHT)).collect()
    assert (row["grain"], row["key"]) == ("hr", "EWR|12")
    assert (row["n_7"], row["temp_7"]) == (3, 33.0)
    assert (row["n_28"], row["temp_28"]) == (4, 39.75)


def test_an_hour_without_a_temperature_has_a_past_of_nothing(spark: SparkSession) -> None:
    tiles = transforms.tiles(_observations(spark, {"temp": None}), Days.of(NIGHT))
    (row,) = transforms.rolling(tiles, Days.of(NIGHT)).collect()
    assert (row["n_7"], row["temp_7"]) == (0, None)


def test_the_label_is_the_temperature_under_the_name_of_what_was_foretold(
    spark: SparkSession,
) -> None:
    (row,) = transforms.labels(_observations(spark, {"temp": 41.5})).collect()
    assert (row["forecast_date"], row["station"], row["temp"]) == (NIGHT, "EWR", 41.5)
