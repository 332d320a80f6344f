"""The derived tables of the weather pipeline: each function makes the table of its name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.transforms.columns import joined, made_by, scoring_moment
from jobs.transforms.rolling import daily_sums, window_figures
from jobs.transforms.snapshots import latest_by_day
from pipelines.weather import DAILY, PIPELINE, ROLLING, STORM_MPH, TIMEZONE

if TYPE_CHECKING:
    from pipelines.days import Days

_OBSERVED = ("temp", "dewp", "humid", "wind_speed", "precip", "pressure", "visib")


def hours(stations: DataFrame, days: Days) -> DataFrame:
    """Every hour of the next day at every station; 23 or 25 when the clocks change."""
    midnight = scoring_moment(TIMEZONE)
    last = scoring_moment(TIMEZONE, "forecast_date") - F.expr("INTERVAL 1 HOUR")
    # Instants between two midnights, so that a day gets as many hours as it has.
    each_hour = F.sequence("event_timestamp", last, F.expr("INTERVAL 1 HOUR"))
    known = latest_by_day(stations, days).select("landed_date", "station")
    nights = known.withColumn("forecast_date", F.date_add("landed_date", 1))
    timed = nights.withColumn("event_timestamp", midnight)
    rows = timed.withColumn("forecast_at", F.explode(each_hour))
    placed = rows.withColumn("hour", F.hour(F.from_utc_timestamp("forecast_at", TIMEZONE)))
    return placed.select(
        "landed_date",
        *PIPELINE.entity,
        "hour",
        "event_timestamp",
        # One for the view of the same hour, one for that of the rolling grain.
        joined("station", "hour").alias("hour_key"),
        joined("station", "hour").alias("hr_key"),
    )


def hourly(observations: DataFrame, days: Days) -> DataFrame:
    """Cleaned observations with the instant at which they are known."""
    # A broken instrument tells nothing: null.
    calm = F.when(F.col("wind_speed") < STORM_MPH, F.col("wind_speed"))
    clean = observations.withColumn("wind_speed", calm)
    return clean.select(
        "landed_date",
        "station",
        "observed_at",
        scoring_moment(TIMEZONE).alias("available_at"),
        joined("station", "hour").alias("hour_key"),
        *_OBSERVED,
    )


def daily(hourly: DataFrame, days: Days) -> DataFrame:
    """The mean of the local day, and how the pressure changed."""
    rows = hourly.groupBy("landed_date", "station").agg(*made_by(DAILY.features))
    return rows.withColumn("event_timestamp", scoring_moment(TIMEZONE))


def tiles(observations: DataFrame, days: Days) -> DataFrame:
    """Additive daily sums by station and hour of the day."""
    return daily_sums(observations, ROLLING)


def rolling(tiles: DataFrame, days: Days) -> DataFrame:
    """Mean temperatures over the windows that end with landed_date."""
    return window_figures(tiles, ROLLING, days, TIMEZONE)


def labels(observations: DataFrame) -> DataFrame:
    """The temperature that was observed, known on the day on which it landed."""
    return observations.select(
        "landed_date",
        F.col("observed_date").alias("forecast_date"),
        "station",
        F.col("observed_at").alias("forecast_at"),
        F.col("temp").alias(PIPELINE.training.label),
    )
