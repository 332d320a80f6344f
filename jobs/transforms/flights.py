"""The derived tables of the flights pipeline: each function makes the table of its name.

Nothing here reads an outcome before the day on which it became known: outcomes are counted by
`landed_date`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.transforms.columns import joined, made_by, scoring_moment
from jobs.transforms.rolling import daily_sums, window_figures
from jobs.transforms.snapshots import latest_by_day
from pipelines.flights import (
    DEPARTURE,
    LATE_MINUTES,
    PIPELINE,
    ROLLING,
    SCHEDULE,
    TIMEZONE,
    WEATHER_DAILY,
    WEATHER_HOURLY,
)

if TYPE_CHECKING:
    from pyspark.sql import Column

    from pipelines.days import Days

_PUERTO_RICO = ("SJU", "BQN", "PSE", "STT")
"""Destinations that the register of airports lacks."""


def departures(schedule: DataFrame, airports: DataFrame, days: Days) -> DataFrame:
    """The scheduled flights of the next day with everything that the schedule alone tells."""
    # time_hour holds the hour alone.
    departs = F.unix_seconds("time_hour") / 60 + F.col("minute")
    placed = _with_zone(schedule, airports, days).withColumn("dep_minute", departs.cast("long"))
    return placed.withColumn("leaves_minute", _destination_minute("dep_minute")).select(
        "landed_date",
        *SCHEDULE.column_names,
        joined(*PIPELINE.entity).alias("departure_id"),
        scoring_moment(TIMEZONE).alias("event_timestamp"),
        *(joined(*grain.columns).alias(f"{grain.name}_key") for grain in ROLLING.grains),
        *made_by(DEPARTURE.features),
    )


def tiles(flights: DataFrame, days: Days) -> DataFrame:
    """Additive daily sums of outcomes, counted on the day on which they became known."""
    return daily_sums(flights, ROLLING)


def rolling(tiles: DataFrame, days: Days) -> DataFrame:
    """Rates and means over the windows that end with landed_date."""
    return window_figures(tiles, ROLLING, days, TIMEZONE)


def weather_hourly(weather: DataFrame, days: Days) -> DataFrame:
    """Cleaned hourly weather with the instant at which it is known."""
    return weather.select(
        "landed_date",
        "origin",
        F.col("time_hour").alias("observed_at"),
        scoring_moment(TIMEZONE).alias("available_at"),
        *made_by(WEATHER_HOURLY.features),
    )


def weather_daily(weather_hourly: DataFrame, days: Days) -> DataFrame:
    """Sums and extremes of the local day."""
    amounts = made_by(WEATHER_DAILY.features)
    return (
        weather_hourly.groupBy("landed_date", "origin")
        .agg(*amounts)
        .withColumn("event_timestamp", scoring_moment(TIMEZONE))
    )


def labels(flights: DataFrame) -> DataFrame:
    """Whether each outcome was late, and the day on which that became known.

    Null when cancelled or diverted.
    """
    # A comparison with null is null: what never arrived has no label.
    late = (F.col("arr_delay") > LATE_MINUTES).cast("int")
    return flights.select("landed_date", *PIPELINE.entity, late.alias(PIPELINE.training.label))


def _with_zone(schedule: DataFrame, airports: DataFrame, days: Days) -> DataFrame:
    """The schedule with `zone`, each destination's time zone by the register of that day."""
    known = latest_by_day(airports, days)
    register = known.select("landed_date", F.col("faa").alias("dest"), "tzone")
    # Left: no flight is lost because the register lacks its destination.
    with_register = schedule.join(F.broadcast(register), ["landed_date", "dest"], "left")
    unlisted = F.when(F.col("dest").isin(*_PUERTO_RICO), "America/Puerto_Rico")
    return with_register.withColumn("zone", F.coalesce("tzone", unlisted))


def _destination_minute(minute: str) -> Column:
    """Whole minutes since 1970 on the destination's clock, of minutes since 1970 in UTC."""
    # As numbers, so that the session's own time zone plays no part.
    instant = F.timestamp_seconds(F.col(minute) * 60)
    seconds = F.unix_seconds(F.from_utc_timestamp(instant, F.col("zone")))
    return (seconds / 60).cast("long")
