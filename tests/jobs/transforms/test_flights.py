"""The derived tables against the pandas reference on the year's hard days, and trap by trap.

Each trap is a row made by hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import DataFrame, Row, SparkSession

from jobs.transforms import flights as transforms
from jobs.transforms.columns import scoring_moment
from pipelines.days import Days
from pipelines.feeds import Feed
from pipelines.flights import FLIGHTS, ROLLING, SCHEDULE, TIMEZONE, WEATHER
from tests.reference import flights as reference

GRAINS = {grain.name: grain.columns for grain in ROLLING.grains}
HARD_DAYS = (
    "2013-01-01",
    "2013-01-02",
    "2013-02-08",
    "2013-02-09",
    "2013-03-10",
    "2013-11-03",
    "2013-12-25",
)
"""First days with short windows, the storm of February, both changes of the clocks, Christmas."""
_DDL = {"long": "bigint"}


def _day(text: str) -> date:
    return date.fromisoformat(text)


def _schema(feed: Feed) -> str:
    return (
        ", ".join(f"{c.name} {_DDL.get(c.type, c.type)}" for c in feed.columns)
        + ", landed_date date"
    )


def _frame(spark: SparkSession, feed: Feed, rows: pd.DataFrame) -> DataFrame:
    names = [*(c.name for c in feed.columns), "landed_date"]
    rows = rows.assign(time_hour=_datetimes(rows["time_hour"]))
    cleaned = rows[names].astype(object).where(rows[names].notna(), None)
    return spark.createDataFrame(cleaned.to_records(index=False).tolist(), _schema(feed))


def _datetimes(instants: pd.Series) -> pd.Series:
    # pandas' own Timestamps are not what Spark takes for a timestamp.
    parsed = pd.to_datetime(instants, utc=True)
    return pd.Series(
        [None if pd.isna(one) else one.to_pydatetime() for one in parsed],
        index=instants.index,
        dtype=object,
    )


@lru_cache(maxsize=1)
def _outcomes() -> pd.DataFrame:
    rows = reference.outcomes()
    return rows.assign(
        landed_date=rows["obs_date"].dt.date, flight_date=rows["flight_date"].dt.date
    )


def _flights(spark: SparkSession, first: date, last: date) -> DataFrame:
    rows = _outcomes()
    return _frame(
        spark, FLIGHTS, rows[(rows["landed_date"] >= first) & (rows["landed_date"] <= last)]
    )


def _schedules(spark: SparkSession, flight_dates: list[date]) -> DataFrame:
    rows = _outcomes()
    rows = rows[rows["flight_date"].isin(flight_dates)]
    return _frame(
        spark,
        SCHEDULE,
        rows.assign(landed_date=[day - timedelta(days=1) for day in rows["flight_date"]]),
    )


@pytest.fixture(scope="module")
def airports(spark: SparkSession) -> DataFrame:
    """The register of airports, landed before the year."""
    rows = pd.read_csv(reference.source_folder() / "airports.csv")
    zones = [
        (faa, None if pd.isna(zone) else zone, date(2012, 12, 31))
        for faa, zone in zip(rows["faa"], rows["tzone"], strict=True)
    ]
    return spark.createDataFrame(zones, "faa string, tzone string, landed_date date")


def _assert_same(found: DataFrame, expected: pd.DataFrame, key: list[str]) -> None:
    names = list(expected.columns)
    frame: Any = found.select(*names).toPandas()
    rows = frame.sort_values(key, ignore_index=True)
    pd.testing.assert_frame_equal(
        rows.replace({None: np.nan}),
        expected.sort_values(key, ignore_index=True).replace({None: np.nan}),
        check_dtype=False,
        rtol=1e-13,
        atol=0,
    )


def test_departures_are_those_of_the_reference_on_hard_days(
    spark: SparkSession, airports: DataFrame
) -> None:
    dates = [_day(text) for text in HARD_DAYS]
    found = transforms.departures(
        _schedules(spark, dates), airports, Days(date(2012, 12, 31), date(2013, 12, 30))
    )
    expected = pd.concat([_expected_departures(flight_date) for flight_date in dates])
    _assert_same(found, expected, reference.KEY)


def _expected_departures(flight_date: date) -> pd.DataFrame:
    rows = reference.schedule_features(flight_date)
    keys = {f"{grain}_key": _keys(rows, columns) for grain, columns in GRAINS.items()}
    moment = reference.scoring_moment(flight_date - timedelta(days=1)).tz_localize(None)
    features = [
        "dow",
        "month",
        "hour",
        "sched_min",
        "distance",
        "block",
        "hol",
        "n_origin_hour",
        "n_origin_day",
        "tail_seq",
    ]
    own = rows.assign(
        flight_date=flight_date,
        landed_date=flight_date - timedelta(days=1),
        event_timestamp=moment,
        **keys,
    )
    own["departure_id"] = [
        f"{flight_date}|{c}|{f}|{o}"
        for c, f, o in zip(own["carrier"], own["flight"], own["origin"], strict=True)
    ]
    return own[
        [
            "landed_date",
            "departure_id",
            "event_timestamp",
            *reference.KEY,
            "dest",
            "tailnum",
            "sched_dep_time",
            *keys,
            *features,
        ]
    ]


def _keys(rows: pd.DataFrame, names: tuple[str, ...]) -> pd.Series:
    parts = rows[list(names)].astype(object)
    return parts.astype(str).agg("|".join, axis=1).where(parts.notna().all(axis=1), None)


@pytest.mark.parametrize(
    ("first", "last"),
    [
        ("2013-01-01", "2013-01-03"),
        ("2013-02-08", "2013-02-09"),
        ("2013-03-09", "2013-03-10"),
        ("2013-11-03", "2013-11-03"),
    ],
)
def test_rolling_rates_are_those_of_the_reference_over_windows_cut_row_by_row(
    spark: SparkSession, first: str, last: str
) -> None:
    days = Days(_day(first), _day(last))
    window = days.since(27)
    daily = transforms.tiles(_flights(spark, window.first, window.last), window)
    _assert_same(
        transforms.rolling(daily, days),
        pd.concat([_expected_rolling(day) for day in days]),
        ["landed_date", "grain", "key"],
    )


def _expected_rolling(day: date) -> pd.DataFrame:
    parts = [_expected_grain(day, grain, names) for grain, names in GRAINS.items()]
    moment = reference.scoring_moment(day).tz_localize(None)
    return pd.concat(parts, ignore_index=True).assign(landed_date=day, event_timestamp=moment)


def _expected_grain(day: date, grain: str, names: tuple[str, ...]) -> pd.DataFrame:
    longest, *shorter = [
        reference.rates(reference.window(day, w), list(names)).add_suffix(f"_{w}")
        for w in (28, 7, 1)
    ]
    joined = longest.join(shorter[0]).join(shorter[1])
    joined[["n_7", "n_1"]] = joined[["n_7", "n_1"]].fillna(0)
    rows = joined.drop(columns=["depdelay_28", "depdelay_7"]).reset_index()
    return rows.assign(grain=grain, key=_keys(rows, names)).drop(columns=list(names))


def test_tiles_of_a_stormy_day_add_up_to_its_outcomes(spark: SparkSession) -> None:
    day = _day("2013-02-08")
    found = transforms.tiles(_flights(spark, day, day), Days.of(day)).where("grain = 'ap'")
    rows = reference.window(day, 1)
    expected = [
        {
            "landed_date": day,
            "key": origin,
            "n": len(part),
            "n_known": part["arr_delay"].notna().sum(),
            "n_late": (part["arr_delay"] > 15).sum(),
            "sum_delay": int(part["arr_delay"].sum()),
            "n_canc": part["dep_time"].isna().sum(),
            "n_departed": part["dep_delay"].notna().sum(),
            "sum_depdelay": int(part["dep_delay"].sum()),
        }
        for origin, part in rows.groupby("origin")
    ]
    _assert_same(found, pd.DataFrame(expected), ["key"])


def test_weather_is_that_of_the_reference_on_hard_days(spark: SparkSession) -> None:
    dates = [_day(text) for text in (*HARD_DAYS, "2013-08-22", "2013-10-25", "2013-12-31")]
    source = reference.weather()
    source = source[source["weather_date"].isin(pd.to_datetime(pd.Series(dates)))]
    raw = source.assign(
        weather_date=source["weather_date"].dt.date, landed_date=source["weather_date"].dt.date
    )
    days = Days(min(dates), max(dates))
    hourly = transforms.weather_hourly(_frame(spark, WEATHER, raw), days)
    moments = {day: reference.scoring_moment(day).tz_localize(None) for day in dates}
    expected = raw.rename(columns={name: f"w_{name}" for name in reference.WEATHER})
    expected = expected.assign(
        observed_at=expected["observed_at"].dt.tz_localize(None),
        available_at=expected["landed_date"].map(moments),
    )
    shown = [
        "landed_date",
        "origin",
        "observed_at",
        "available_at",
        *(f"w_{name}" for name in reference.WEATHER),
    ]
    _assert_same(hourly, expected[shown], ["origin", "observed_at"])
    daily = [
        reference.weather_of_day(day).assign(landed_date=day, event_timestamp=moments[day])
        for day in dates
        if day != _day("2013-12-31")
    ]
    _assert_same(
        transforms.weather_daily(hourly, days), pd.concat(daily), ["landed_date", "origin"]
    )


def _departure(spark: SparkSession, airports: DataFrame, *flights: Mapping[str, Any]) -> list[Row]:
    """Departures of hand-made flights of 2013-03-09 and what differs from them."""
    usual = {
        "flight_date": date(2013, 3, 9),
        "carrier": "B6",
        "tailnum": None,
        "origin": "JFK",
        "dest": "BOS",
        "sched_dep_time": 800,
        "sched_arr_time": 910,
        "distance": 187,
        "landed_date": date(2013, 3, 8),
    }
    rows = [{**usual, "flight": n, **flight} for n, flight in enumerate(flights, 1)]
    for row in rows:
        row["hour"], row["minute"] = divmod(row["sched_dep_time"], 100)
        local = pd.Timestamp(row["flight_date"], tz=reference.NEW_YORK) + pd.DateOffset(
            hours=row["hour"]
        )
        row["time_hour"] = local.tz_convert("UTC").to_pydatetime()
    schedule = _frame(spark, SCHEDULE, pd.DataFrame(rows))
    last = max(row["landed_date"] for row in rows)
    return (
        transforms.departures(schedule, airports, Days(date(2013, 1, 1), last))
        .orderBy("flight")
        .collect()
    )


def test_block_counts_minutes_on_the_destinations_clock(
    spark: SparkSession, airports: DataFrame
) -> None:
    rows = _departure(
        spark,
        airports,
        {"dest": "BOS", "sched_dep_time": 800, "sched_arr_time": 910},
        {"dest": "BOS", "sched_dep_time": 2330, "sched_arr_time": 40},  # past midnight
        {
            "dest": "BOS",
            "sched_dep_time": 2250,
            "sched_arr_time": 2400,
        },  # midnight written as the end of a day
        {"dest": "LAX", "sched_dep_time": 800, "sched_arr_time": 1115},  # three hours behind
        {"dest": "HNL", "sched_dep_time": 1000, "sched_arr_time": 1530},
        {"dest": "PHX", "sched_dep_time": 800, "sched_arr_time": 1140},  # knows no summer time
        {
            "dest": "SJU",
            "sched_dep_time": 2359,
            "sched_arr_time": 442,
        },  # not in the register; an hour ahead in winter
        {"dest": "STT", "sched_dep_time": 800, "sched_arr_time": 1305},
        {"dest": "XXX", "sched_dep_time": 800, "sched_arr_time": 1305},
    )
    assert [row["block"] for row in rows] == [70, 70, 70, 375, 630, 340, 223, 245, None]


def test_tail_sequence_counts_earlier_flights_of_the_plane_and_ties_share_a_place(
    spark: SparkSession, airports: DataFrame
) -> None:
    times = (800, 1200, 1200, 1700)
    rows = _departure(
        spark, airports, *({"tailnum": "N1", "sched_dep_time": time} for time in times), {}, {}
    )
    assert [(row["tail_key"], row["tail_seq"]) for row in rows] == [
        ("N1", 1),
        ("N1", 2),
        ("N1", 2),
        ("N1", 4),
        (None, 0),
        (None, 0),
    ]


def test_scheduled_flights_are_counted_by_origin_and_hour(
    spark: SparkSession, airports: DataFrame
) -> None:
    rows = _departure(
        spark,
        airports,
        {"sched_dep_time": 800},
        {"sched_dep_time": 859},
        {"sched_dep_time": 900},
        {"origin": "EWR"},
    )
    assert [(row["n_origin_hour"], row["n_origin_day"], row["oh_key"]) for row in rows] == [
        (2, 3, "JFK|8"),
        (2, 3, "JFK|8"),
        (1, 3, "JFK|9"),
        (1, 1, "EWR|8"),
    ]


def test_days_to_the_nearest_holiday(spark: SparkSession, airports: DataFrame) -> None:
    # 2013-01-11 lies ten days from both; 2013-12-29 four days after Christmas, three before New
    # Year.
    expected = {
        "2013-01-01": 0,
        "2013-01-02": -1,
        "2013-01-11": -7,
        "2013-07-02": 2,
        "2013-12-28": -3,
        "2013-12-29": 3,
        "2013-06-10": -7,
        "2013-06-20": 7,
    }
    dates = [_day(text) for text in expected]
    rows = _departure(
        spark,
        airports,
        *(
            {"flight_date": day, "landed_date": max(day - timedelta(days=1), date(2013, 1, 1))}
            for day in dates
        ),
    )
    assert {str(row["flight_date"]): row["hol"] for row in rows} == expected


_MIDNIGHTS = {
    "2013-01-01": "2013-01-02T05:00",
    "2013-03-09": "2013-03-10T05:00",
    "2013-03-10": "2013-03-11T04:00",
    "2013-11-02": "2013-11-03T04:00",
    "2013-11-03": "2013-11-04T05:00",
}


@pytest.mark.parametrize(("day", "moment"), _MIDNIGHTS.items())
def test_the_scoring_moment_is_local_midnight_whatever_the_sessions_zone(
    spark: SparkSession, day: str, moment: str
) -> None:
    one = spark.createDataFrame([(_day(day),)], "landed_date date").select(
        scoring_moment(TIMEZONE).cast("long").alias("seconds")
    )
    spark.conf.set("spark.sql.session.timeZone", "Asia/Kolkata")
    try:
        seconds = one.collect()[0]["seconds"]
    finally:
        spark.conf.set("spark.sql.session.timeZone", "UTC")
    assert datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%dT%H:%M") == moment


def _outcome(
    key: Mapping[str, Any], arr_delay: int | None, dep_delay: int | None, dep_time: int | None
) -> dict[str, Any]:
    blank = dict.fromkeys((column.name for column in FLIGHTS.columns), None)
    return {
        **blank,
        "carrier": "B6",
        "origin": "JFK",
        "dest": "BOS",
        "hour": 8,
        **key,
        "arr_delay": arr_delay,
        "dep_delay": dep_delay,
        "dep_time": dep_time,
    }


def test_outcomes_without_a_label_are_counted_and_never_rated(spark: SparkSession) -> None:
    day = date(2013, 5, 1)
    rows = [
        _outcome({"tailnum": "N1"}, 15, 0, 800),  # exactly 15 minutes is not late
        _outcome({"tailnum": "N1"}, 16, 6, 800),
        _outcome({"tailnum": "N1"}, None, 30, 2400),  # diverted
        _outcome({"tailnum": None}, None, None, None),  # cancelled before a plane was assigned
    ]
    daily = transforms.tiles(
        _frame(spark, FLIGHTS, pd.DataFrame(rows).assign(landed_date=day)), Days.of(day)
    )
    found = {(row["grain"], row["key"]): row for row in daily.collect()}
    assert set(found) == {
        ("co", "B6|JFK"),
        ("dest", "BOS"),
        ("route", "JFK|BOS"),
        ("tail", "N1"),
        ("oh", "JFK|8"),
        ("ap", "JFK"),
    }
    sums = ["n", "n_known", "n_late", "sum_delay", "n_canc", "n_departed", "sum_depdelay"]
    assert [found["ap", "JFK"][name] for name in sums] == [4, 2, 1, 31, 1, 3, 36]
    assert [found["tail", "N1"][name] for name in sums] == [3, 2, 1, 31, 0, 3, 36]


def _tile(
    day: str, key: str, n: int, known: int, late: int, delay: int, cancelled: int
) -> tuple[Any, ...]:
    return (
        _day(day),
        "dest",
        key,
        n,
        known,
        late,
        delay,
        cancelled,
        n - cancelled,
        10 * (n - cancelled),
    )


def test_a_window_without_rows_has_count_zero_and_no_rates_and_an_old_key_no_row(
    spark: SparkSession,
) -> None:
    sums = ("n", "n_known", "n_late", "sum_delay", "n_canc", "n_departed", "sum_depdelay")
    schema = ", ".join(
        ["landed_date date, grain string, key string", *(f"{name} long" for name in sums)]
    )
    rows = [
        _tile("2013-05-01", "old", 1, 1, 1, 99, 0),
        _tile("2013-05-02", "edge", 2, 2, 1, 50, 0),
        _tile("2013-05-29", "gone", 1, 0, 0, 0, 1),
    ]
    daily = spark.createDataFrame(rows, schema)
    found = transforms.rolling(daily, Days.of(_day("2013-05-29"))).orderBy("key").collect()
    names = [
        "key",
        "n_1",
        "late_1",
        "n_7",
        "late_7",
        "delay_7",
        "canc_7",
        "n_28",
        "late_28",
        "delay_28",
        "canc_28",
        "depdelay_1",
    ]
    assert [tuple(row[name] for name in names) for row in found] == [
        ("edge", 0, None, 0, None, None, None, 2, 0.5, 25.0, 0.0, None),
        ("gone", 1, None, 1, None, None, 1.0, 1, None, None, 1.0, None),
    ]


def test_a_broken_anemometer_is_no_wind(spark: SparkSession) -> None:
    day = date(2013, 7, 1)
    blank = dict.fromkeys((column.name for column in WEATHER.columns), None)
    winds = [(200.0, None), (199.9, 0.2), (1048.36, 0.1)]
    rows = [
        {**blank, "origin": "EWR", "hour": n, "wind_speed": wind, "precip": precip}
        for n, (wind, precip) in enumerate(winds)
    ]
    hourly = transforms.weather_hourly(
        _frame(spark, WEATHER, pd.DataFrame(rows).assign(landed_date=day)), Days.of(day)
    )
    [daily] = transforms.weather_daily(hourly, Days.of(day)).collect()
    assert sorted(
        (row["w_wind_speed"] is None, row["w_wind_speed"]) for row in hourly.collect()
    ) == [
        (False, 199.9),
        (True, None),
        (True, None),
    ]
    assert (daily["wd_wind_max"], daily["wd_precip"], daily["wd_visib_min"]) == (
        199.9,
        pytest.approx(0.3),
        None,
    )
