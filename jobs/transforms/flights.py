"""The derived tables of the flights pipeline.

Each function makes the table of its name from the tables it is given.

Nothing here reads an outcome before the day on which it became known: outcomes are counted by
`landed_date`.
"""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from jobs.transforms.snapshots import in_force
from pipelines.flights import GRAINS, PIPELINE, ROLLING_DAYS, SCHEDULE

if TYPE_CHECKING:
    from pyspark.sql import Column

    from pipelines.days import Days

LATE_MINUTES = 15
"""A flight is late when it arrives more than this after its schedule."""
STORM_MPH = 200
"""A wind speed from here on is a broken instrument (one reads 1,048)."""
_PUERTO_RICO = ("SJU", "BQN", "PSE", "STT")
"""Destinations that the register of airports lacks."""
_HOLIDAYS = tuple(
    date.fromisoformat(day)
    for day in (
        *("2013-01-01", "2013-01-21", "2013-02-18", "2013-05-27", "2013-07-04", "2013-09-02"),
        *("2013-10-14", "2013-11-11", "2013-11-28", "2013-12-25", "2014-01-01"),
    )
)
_HOLIDAY_REACH = 7
_WINDOWS = (1, *ROLLING_DAYS)
_SUMS = ("n", "n_known", "n_late", "sum_delay", "n_canc", "n_departed", "sum_depdelay")
_OBSERVED = ("temp", "dewp", "humid", "wind_speed", "precip", "pressure", "visib")


def departures(schedule: DataFrame, airports: DataFrame, days: Days) -> DataFrame:
    """The scheduled flights of the next day with everything that the schedule alone tells."""
    departs = F.unix_seconds("time_hour") / 60 + F.col("minute")
    placed = _with_zone(schedule, airports, days).withColumn("dep_minute", departs.cast("long"))
    same_tail = Window.partitionBy("landed_date", "flight_date", "tailnum").orderBy("dep_minute")
    at_origin = Window.partitionBy("landed_date", "flight_date", "origin")
    in_hour = Window.partitionBy("landed_date", "flight_date", "origin", "hour")
    keys = [_key(columns).alias(f"{grain}_key") for grain, columns in GRAINS.items()]
    return placed.select(
        "landed_date",
        *(column.name for column in SCHEDULE.columns),
        _joined("flight_date", "carrier", "flight", "origin").alias("departure_id"),
        scoring_moment("landed_date").alias("event_timestamp"),
        *keys,
        (F.weekday("flight_date") + 1).alias("dow"),
        F.month("flight_date").alias("month"),
        _minutes("sched_dep_time").alias("sched_min"),
        _block().alias("block"),
        _days_to_holiday("flight_date").alias("hol"),
        F.count(F.lit(1)).over(in_hour).alias("n_origin_hour"),
        F.count(F.lit(1)).over(at_origin).alias("n_origin_day"),
        F.when(F.col("tailnum").isNull(), 0).otherwise(F.rank().over(same_tail)).alias("tail_seq"),
    )


def tiles(flights: DataFrame, days: Days) -> DataFrame:
    """Additive daily sums of outcomes by grain and key, counted on the day they became known."""
    known, departed = F.col("arr_delay").isNotNull(), F.col("dep_delay").isNotNull()
    keyed = F.explode(
        F.array(
            *(
                F.struct(F.lit(grain).alias("grain"), _key(columns).alias("key"))
                for grain, columns in GRAINS.items()
            )
        )
    )
    rows = flights.select(
        "landed_date", "arr_delay", "dep_delay", "dep_time", keyed.alias("of")
    ).select("*", "of.grain", "of.key")
    return (
        rows.where(F.col("key").isNotNull())
        .groupBy("landed_date", "grain", "key")
        .agg(
            F.count(F.lit(1)).alias("n"),
            F.count_if(known).alias("n_known"),
            F.count_if(F.col("arr_delay") > LATE_MINUTES).alias("n_late"),
            F.coalesce(F.sum("arr_delay"), F.lit(0)).alias("sum_delay"),
            F.count_if(F.col("dep_time").isNull()).alias("n_canc"),
            F.count_if(departed).alias("n_departed"),
            F.coalesce(F.sum("dep_delay"), F.lit(0)).alias("sum_depdelay"),
        )
    )


def rolling(tiles: DataFrame, days: Days) -> DataFrame:
    """Rates and means over the windows that end with landed_date.

    Every key with a row in the longest window has them.
    """
    longest = max(_WINDOWS)
    first = F.greatest(F.col("landed_date"), F.lit(days.first))
    last = F.least(F.date_add("landed_date", longest - 1), F.lit(days.last))
    counted = tiles.where(first <= last).withColumn("day", F.explode(F.sequence(first, last)))
    age = F.datediff("day", "landed_date")
    sums = [
        F.sum(F.when(age < w, F.col(name)).otherwise(0)).alias(f"{name}_{w}")
        for w in _WINDOWS
        for name in _SUMS
    ]
    rows = counted.groupBy(F.col("day").alias("landed_date"), "grain", "key").agg(*sums)
    return rows.select(
        "landed_date",
        scoring_moment("landed_date").alias("event_timestamp"),
        "grain",
        "key",
        *(column for w in _WINDOWS for column in _rates(w)),
        _ratio("sum_depdelay_1", "n_departed_1").alias("depdelay_1"),
    )


def weather_hourly(weather: DataFrame, days: Days) -> DataFrame:
    """Cleaned hourly weather with the instant at which it is known."""
    clean = weather.withColumn(
        "wind_speed", F.when(F.col("wind_speed") < STORM_MPH, F.col("wind_speed"))
    )
    return clean.select(
        "landed_date",
        "origin",
        F.col("time_hour").alias("observed_at"),
        scoring_moment("landed_date").alias("available_at"),
        *(F.col(name).alias(f"w_{name}") for name in _OBSERVED),
    )


def weather_daily(weather_hourly: DataFrame, days: Days) -> DataFrame:
    """Sums and extremes of the local day."""
    # Doubles are added in the order of their size: a sum in the order of arrival would differ in
    # its last digit from run to run.
    amounts = F.array_sort(F.collect_list("w_precip"))
    total = F.when(
        F.size(amounts) > 0, F.aggregate(amounts, F.lit(0.0), lambda total, amount: total + amount)
    )
    return (
        weather_hourly.groupBy("landed_date", "origin")
        .agg(
            total.alias("wd_precip"),
            F.min("w_visib").alias("wd_visib_min"),
            F.max("w_wind_speed").alias("wd_wind_max"),
        )
        .select(
            "landed_date",
            "origin",
            scoring_moment("landed_date").alias("event_timestamp"),
            "wd_precip",
            "wd_visib_min",
            "wd_wind_max",
        )
    )


def scoring_moment(day: str) -> Column:
    """Local midnight at the end of the day in that column, as an instant."""
    following = F.date_add(day, 1)
    zero = F.lit(0)
    return F.make_timestamp(
        F.year(following),
        F.month(following),
        F.day(following),
        zero,
        zero,
        zero,
        F.lit(PIPELINE.timezone),
    )


def _with_zone(schedule: DataFrame, airports: DataFrame, days: Days) -> DataFrame:
    """The schedule with `zone`: each destination's time zone by the register in force that day."""
    register = in_force(airports, days).select("landed_date", F.col("faa").alias("dest"), "tzone")
    joined = schedule.join(F.broadcast(register), ["landed_date", "dest"], "left")
    unlisted = F.when(F.col("dest").isin(*_PUERTO_RICO), "America/Puerto_Rico")
    return joined.withColumn("zone", F.coalesce("tzone", unlisted))


def _block() -> Column:
    """Scheduled minutes from departure to arrival.

    The arrival is on the destination's clock, which passes midnight at most once.
    """
    # As whole minutes since 1970 on that clock, so that the session's own time zone plays no part.
    instant = F.timestamp_seconds(F.col("dep_minute") * 60)
    departs = (F.unix_seconds(F.from_utc_timestamp(instant, F.col("zone"))) / 60).cast("long")
    return F.pmod(_minutes("sched_arr_time") - departs, F.lit(24 * 60)).cast("int")


def _minutes(clock: str) -> Column:
    """Minutes after midnight of a clock time written as HHMM; 2400 is the end of the day."""
    return ((F.col(clock) - F.col(clock) % 100) / 100 * 60 + F.col(clock) % 100).cast("int")


def _days_to_holiday(day: str) -> Column:
    """Days to the nearest holiday, negative after it.

    The one before wins a tie; at most 7 either way.
    """
    distances = [F.datediff(F.lit(holiday), F.col(day)) for holiday in _HOLIDAYS]
    nearest = F.array_min(
        F.array(
            *(
                F.struct(F.abs(distance).alias("away"), distance.alias("signed"))
                for distance in distances
            )
        )
    )["signed"]
    return F.greatest(F.lit(-_HOLIDAY_REACH), F.least(F.lit(_HOLIDAY_REACH), nearest))


def _key(columns: tuple[str, ...]) -> Column:
    return _joined(*columns)


def _joined(*columns: str) -> Column:
    """Values joined by '|'; null when one of them is."""
    first, *others = [F.col(column).cast("string") for column in columns]
    return F.concat(first, *(part for other in others for part in (F.lit("|"), other)))


def _rates(w: int) -> tuple[Column, ...]:
    return (
        F.col(f"n_{w}"),
        _ratio(f"n_late_{w}", f"n_known_{w}").alias(f"late_{w}"),
        _ratio(f"sum_delay_{w}", f"n_known_{w}").alias(f"delay_{w}"),
        _ratio(f"n_canc_{w}", f"n_{w}").alias(f"canc_{w}"),
    )


def _ratio(amount: str, count: str) -> Column:
    return F.when(F.col(count) > 0, F.col(amount) / F.col(count))


def labels(flights: DataFrame) -> DataFrame:
    """Whether each outcome was late, and the day on which that became known.

    Null when cancelled or diverted.
    """
    late = (F.col("arr_delay") > LATE_MINUTES).cast("int")
    return flights.select("landed_date", *PIPELINE.entity, late.alias(PIPELINE.training.label))
